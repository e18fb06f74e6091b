// SPDX-License-Identifier: Apache-2.0
//! Kubernetes watches into tables, status out.
