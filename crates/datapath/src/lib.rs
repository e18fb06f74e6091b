// SPDX-License-Identifier: Apache-2.0
//! Loads, attaches, pins and reads the eBPF datapath.
