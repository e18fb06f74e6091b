// SPDX-License-Identifier: Apache-2.0
//! A kubelet: makes of the Pods bound to a node what a container runtime would.

pub mod cni;
