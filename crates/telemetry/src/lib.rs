// SPDX-License-Identifier: Apache-2.0
//! Logging set-up and the metrics registry.
