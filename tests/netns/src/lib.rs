// SPDX-License-Identifier: Apache-2.0
//! Real agents and real traffic in network namespaces.
