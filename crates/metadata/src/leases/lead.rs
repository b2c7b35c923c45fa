//! Doing a job for as long as its lease is this node's, and waiting for it otherwise.
//! Guards: work is dropped as soon as its lease is known to be lost, and cannot commit before that is known.

use std::{future::Future, ops::ControlFlow, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Job, JobLease, LEASE_US};
use crate::{Metadata, Result};

/// How often a lease is renewed, and looked for by those who do not have it.
const EVERY: Duration = Duration::from_micros(LEASE_US.unsigned_abs() / 3);

impl Metadata {
    /// Does `work` whenever this node has the job, with a handle whose writes are fenced by the lease. Work that ends gives
    /// the lease back; it is begun again a moment later, here or at another node, or here no more where it broke off.
    pub async fn lead<W, F>(&self, job: Job, mut work: W)
    where
        W: FnMut(Self, JobLease) -> F,
        F: Future<Output = ControlFlow<()>>,
    {
        loop {
            match self.take_lease(job).await {
                Ok(Some(lease)) => {
                    tracing::info!(%job, token = lease.token, "this node has taken a job of its site");
                    match self.while_held(&lease, work(self.under(&lease), lease)).await {
                        None => {
                            tracing::warn!(%job, token = lease.token, "this node no longer has a job of its site");
                        }
                        Some(ended) => {
                            if let Err(error) = self.give_lease(&lease).await {
                                tracing::debug!(%job, %error, "a lease could not be given back: it lapses");
                            }
                            if ended.is_break() {
                                return;
                            }
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%job, %error, "a lease could not be asked for, trying again"),
            }
            sleep(EVERY).await;
        }
    }

    /// What comes of `work`, which goes on for as long as the lease is this node's; none where that ended first.
    pub async fn while_held<T>(&self, lease: &JobLease, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            ended = work => Some(ended),
            () = self.keep(lease) => None,
        }
    }

    /// Renews until the lease is lost, or may be: the database did not answer for as long as it holds.
    async fn keep(&self, lease: &JobLease) {
        let holds = Duration::from_micros(LEASE_US.unsigned_abs());
        let mut until = Instant::now() + holds;
        loop {
            sleep(EVERY).await;
            let asked = Instant::now();
            let renewed: Option<Result<bool>> = timeout_at(until, self.renew_lease(lease, None)).await.ok();
            match renewed {
                Some(Ok(true)) => until = asked + holds,
                Some(Ok(false)) => return,
                Some(Err(error)) => {
                    tracing::warn!(job = %lease.job, %error, "a lease could not be renewed, trying again");
                }
                None => {}
            }
            if Instant::now() >= until {
                return;
            }
        }
    }
}
