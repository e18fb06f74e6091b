// SPDX-License-Identifier: Apache-2.0
//! The node agent: composition of tables, apply loop, CNI server and socket API.
