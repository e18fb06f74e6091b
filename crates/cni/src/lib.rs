// SPDX-License-Identifier: Apache-2.0
//! CNI specification types and the protocol between plugin and agent.
