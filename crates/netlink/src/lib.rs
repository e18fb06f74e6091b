// SPDX-License-Identifier: Apache-2.0
//! Blocking netlink: links, addresses, routes, neighbours, namespaces.
