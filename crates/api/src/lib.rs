// SPDX-License-Identifier: Apache-2.0
//! Agent configuration and the types of the agent socket.
