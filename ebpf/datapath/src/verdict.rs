// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What becomes of a packet, and telling user space.

use core::num::NonZeroU32;

use datapath_common::event::{self, Hook};
use datapath_common::{Direction, DropEvent, Reason};

use crate::{Ctx, maps, parse};

/// Goes on to other programs of the hook, then to the host's stack (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;

/// A packet that lives on.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not a pod's: left to the host's stack untouched and uncounted.
    Pass,
    /// A pod's, for the host's stack.
    Stack,
    /// Turned into an answer to its sender; the action of the redirect.
    Answer(i32),
    /// A pod's, on its way past the host's stack; the action of the redirect.
    Redirect(i32),
}

/// A packet that dies, and why.
///
/// Never zero and half a word, so that `Result<(), Drop>` and `Result<Verdict, Drop>` are scalars: a function of the kernel
/// returns no more than one.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop(NonZeroU32);

const _: () = assert!(size_of::<Result<(), Drop>>() == 4 && size_of::<Result<Verdict, Drop>>() == 8);

impl Verdict {
    /// Counts the packet and returns the action for the kernel.
    #[inline(always)]
    pub fn emit(self, ctx: &Ctx, hook: Hook) -> i32 {
        let action = match self {
            Self::Pass => return NEXT,
            Self::Answer(action) => return action,
            Self::Stack => NEXT,
            Self::Redirect(action) => action,
        };
        maps::count(Reason::FORWARDED, direction(hook), ctx.length());
        action
    }
}

impl Drop {
    /// For this reason.
    #[inline(always)]
    pub const fn new(reason: Reason) -> Self {
        Self(NonZeroU32::MIN.saturating_add(reason.0 as u32))
    }

    /// The reason.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        Reason((self.0.get() - 1) as u8)
    }

    /// Counts the packet, tells user space and returns the action for the kernel.
    #[inline(always)]
    pub fn emit(self, ctx: &Ctx, hook: Hook) -> i32 {
        self.note(ctx, hook);
        SHOT
    }

    /// Counts the packet and tells user space.
    #[inline(never)]
    pub fn note(self, ctx: &Ctx, hook: Hook) {
        let (reason, direction) = (self.reason(), direction(hook));
        maps::count(reason, direction, ctx.length());
        let told =
            reason == Reason::LINK_LOCAL_CHATTER || maps::tell(|event| self.describe(ctx, hook, event));
        if !told {
            maps::count(Reason::EVENT_LOST, direction, ctx.length());
        }
    }

    #[inline(always)]
    fn describe(self, ctx: &Ctx, hook: Hook, event: &mut DropEvent) {
        event.version = event::VERSION;
        event.kind = event::KIND_DROP;
        event.reason = self.reason();
        event.direction = direction(hook) as u8;
        event.hook = hook as u8;
        event.ifindex = ctx.ifindex();
        event.timestamp = ctx.now_ns();
        event.length = ctx.length();
        parse::describe(ctx, event);
    }
}

#[inline(always)]
const fn direction(hook: Hook) -> Direction {
    match hook {
        Hook::FromPod => Direction::Egress,
        Hook::FromWire | Hook::FromHost | Hook::FromTunnel => Direction::Ingress,
    }
}
