// SPDX-License-Identifier: Apache-2.0
//! A multi-node cluster network on one machine, in network namespaces.
