// SPDX-License-Identifier: Apache-2.0
//! Tables with one writer, cheap snapshots and a status per row.
