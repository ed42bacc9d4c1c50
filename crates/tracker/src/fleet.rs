//! Several trackers that act as one: a *fleet*, which shares its registrations through a store (Redis or Valkey).
//!
//! Every tracker of a fleet has all registrations in its own [`Registry`](crate::Registry) and answers from it. The store is behind
//! that, in both directions:
//!
//! - *Written behind.* What peers announce here is collected while they are answered ([`seam`]), and written in batches afterwards
//!   ([`outbox`]). A batch renews the registrations in the store, and the same batch is published to the other trackers ([`feed`]).
//! - *Read ahead.* A tracker takes in what others publish. When it starts, or has lost its connection, it reads everything that the
//!   store has.
//!
//! So no answer waits for the store, with one exception: a lookup of a share that is unknown here waits for one read of that share.
//!
//! All of this is pure, except for `redis` and `link`, which have the connection, the clock and the task.
//!
//! Invariants:
//! - The store is trusted as much as the other trackers, but not more than a decoder is: nothing that it holds makes this tracker panic
//!   or take in an illegal value.
//! - Every queue has a bound. What does not fit is counted, and comes again with the next heartbeat of its peer.
//! - Times of the store are those of its own clock ([`time`]), so the clocks of the trackers need not agree.

mod departed;
pub mod feed;
pub mod layout;
#[cfg(feature = "registry")]
#[expect(clippy::disallowed_methods, reason = "the shell has the clock and the randomness")]
pub(crate) mod link;
pub mod members;
pub mod outbox;
pub mod record;
#[cfg(feature = "registry")]
pub mod redis;
pub mod seam;
pub mod secret;
#[cfg_attr(not(feature = "registry"), expect(dead_code, reason = "there is no task without the feature"))]
pub(crate) mod side;
pub mod time;
