// SPDX-License-Identifier: Apache-2.0
//! From services and who is behind them to rows of the maps of services.
//!
//! [`Balancer`] is told what changes: services, their slices, this node, ports of its pods. [`Balancer::step`] then says which rows are
//! to be written and which deleted, as a [`Batch`]: as many as the change is big, however many services there are. A service's row keeps
//! its place: a backend that goes is replaced by the last of its set, and who restarts takes the numbers of sets from
//! the rows that are there ([`Former`]).
//!
//! Nothing here reads or writes a map, knows a clock, or sees an object of Kubernetes. Who is chosen is kube-proxy's rule
//! (`pkg/proxy/topology.go`), in [`choose`].

mod balancer;
mod batch;
mod choose;
mod claims;
mod emit;
mod entry;
mod former;
mod frontend;
mod local;
mod maglev;
mod owner;
mod resolve;
mod sets;
mod view;

pub use balancer::Balancer;
pub use batch::Batch;
pub use former::Former;
pub use frontend::{Frontend, Kind, Target};
pub use local::{Local, Networks, Settings};
pub use maglev::table as maglev_table;
pub use owner::{Owner, PodPorts, Totals};
pub use resolve::{Remark, Weight};
pub use view::{BackendView, FrontendView, ServiceView};
