// SPDX-License-Identifier: Apache-2.0
//! Connectivity scenarios and performance runs over a Cluster trait.
