// SPDX-License-Identifier: Apache-2.0
//! A small embedded Kubernetes API server for the lab and for tests.
