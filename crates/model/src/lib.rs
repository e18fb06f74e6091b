// SPDX-License-Identifier: Apache-2.0
//! The words of the network: node, endpoint, address, identity.
