// SPDX-License-Identifier: Apache-2.0
//! Address pools: pure allocation, no clock, no input or output.
