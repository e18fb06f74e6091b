// SPDX-License-Identifier: Apache-2.0
//! Load gate and packet traversals by BPF_PROG_TEST_RUN.
