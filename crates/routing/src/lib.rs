// SPDX-License-Identifier: Apache-2.0
//! Which routes a node needs: pure.
