//! How many queries a tenant may run: a limit that runs, a bounded queue that waits, the next one refused.
//!
//! One tenant's flood keeps neither another tenant nor the querier from answering.

use std::sync::{Arc, Mutex, PoisonError};

use cambium_model::tenant::{Tenant, TenantNumber};
use hashbrown::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Tenants with a gate, above which idle gates are dropped.
const GATES_MAX: usize = 1_024;

/// The gates of all tenants.
#[derive(Debug)]
pub(crate) struct Admission {
    queue_max: usize,
    gates: Mutex<HashMap<TenantNumber, Gate>>,
}

#[derive(Clone, Debug)]
struct Gate {
    /// The limit it was made for.
    running_max: u64,
    /// Running and waiting together.
    entered: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// The right to run a query; ends when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _running: OwnedSemaphorePermit,
    _entered: OwnedSemaphorePermit,
}

impl Admission {
    /// At most `queue_max` of a tenant's queries wait.
    pub fn new(queue_max: usize) -> Self {
        Self { queue_max, gates: Mutex::default() }
    }

    /// Waits until fewer than `running_max` of the tenant's queries run. A changed limit counts from the next query
    /// on; those under way run to their end.
    ///
    /// Errors: [`Error::Saturated`] where the queue is full.
    pub async fn enter(&self, tenant: &Tenant, running_max: u64) -> Result<Permit, Error> {
        let gate = self.gate(tenant.number, running_max);
        let entered = gate.entered.try_acquire_owned().map_err(|_| Error::Saturated {
            tenant: tenant.id.to_string(),
            running: running_max,
            waiting: self.queue_max,
        })?;
        let running = gate.running.acquire_owned().await.expect("nobody closes the semaphore");
        Ok(Permit { _running: running, _entered: entered })
    }

    fn gate(&self, tenant: TenantNumber, running_max: u64) -> Gate {
        let permits = usize::try_from(running_max).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS / 2);
        let queue_max = self.queue_max.min(Semaphore::MAX_PERMITS / 2);
        let new = || Gate {
            running_max,
            entered: Arc::new(Semaphore::new(permits + queue_max)),
            running: Arc::new(Semaphore::new(permits)),
        };
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= GATES_MAX {
            // Whoever runs or waits holds a permit, and with it the semaphore.
            gates.retain(|_, gate| Arc::strong_count(&gate.entered) > 1);
        }
        let gate = gates.entry(tenant).or_insert_with(new);
        if gate.running_max != running_max {
            *gate = new();
        }
        gate.clone()
    }
}

#[cfg(test)]
mod tests {
    use cambium_model::tenant::TenantId;
    use futures::FutureExt;

    use super::*;

    fn tenant(number: u32) -> Tenant {
        Tenant { id: TenantId::new(&format!("t{number}")).unwrap(), number: TenantNumber(number) }
    }

    #[test]
    fn the_limit_runs_the_queue_waits_and_the_next_is_refused() {
        let admission = Admission::new(1);
        let first = admission.enter(&tenant(1), 2).now_or_never().unwrap().unwrap();
        let _second = admission.enter(&tenant(1), 2).now_or_never().unwrap().unwrap();
        let one = tenant(1);
        let mut third = Box::pin(admission.enter(&one, 2));
        assert!((&mut third).now_or_never().is_none(), "the third waits");
        let fourth = admission.enter(&tenant(1), 2).now_or_never().unwrap();
        assert!(matches!(fourth, Err(Error::Saturated { running: 2, waiting: 1, .. })));
        assert!(admission.enter(&tenant(2), 2).now_or_never().unwrap().is_ok(), "another tenant runs");
        drop(first);
        assert!(third.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_caller_that_gives_up_leaves_the_queue() {
        let admission = Admission::new(1);
        let one = tenant(1);
        let _first = admission.enter(&one, 1).now_or_never().unwrap().unwrap();
        for _ in 0..3 {
            assert!(admission.enter(&one, 1).now_or_never().is_none());
        }
    }

    #[test]
    fn idle_gates_do_not_pile_up() {
        let admission = Admission::new(1);
        let _busy = admission.enter(&tenant(0), 1).now_or_never().unwrap().unwrap();
        for number in 1..=3 * GATES_MAX as u32 {
            admission.enter(&tenant(number), 1).now_or_never().unwrap().unwrap();
        }
        let gates = admission.gates.lock().unwrap();
        assert!(gates.len() <= GATES_MAX + 1 && gates.contains_key(&TenantNumber(0)));
    }
}
