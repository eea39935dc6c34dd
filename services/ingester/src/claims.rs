//! Claims between processes: which pushes of an earlier tenure count in the log of that tenure. See [`crate::leftover`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_blocks::remote::open::{decode_log, encode_log};
use cambium_cluster::peers::{Peers, Sender};
use cambium_cluster::view::View;
use cambium_metastore::leases::Lease;
use cambium_metastore::owners::Owner;
use cambium_model::block::LogId;
use cambium_model::profile::ProfileId;
use cambium_model::tenant::TenantNumber;
use cambium_proto::wire::ingester as wire;
use cambium_runtime::clock::Clock;
use tokio::sync::watch;
use wire::ingester_service_client::IngesterServiceClient;

use crate::Error;
use crate::partition::{Claimed, Pushed};
use crate::tenure::Claims;

/// How long an owner may take to answer.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks owners over gRPC.
#[derive(Debug)]
pub struct PeerClaims {
    /// Who is there.
    pub view: watch::Receiver<Arc<View>>,
    /// Channels to them.
    pub peers: Arc<Peers>,
    /// This node's credentials.
    pub sender: Sender,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Claims for PeerClaims {
    async fn claim(&self, owner: &Owner, log: LogId, pushes: &[Pushed]) -> Result<Claimed, Error> {
        let view = Arc::clone(&self.view.borrow());
        let node = view.named(&owner.holder);
        let channel = node.and_then(|node| self.peers.channel(node).ok());
        let channel = channel.ok_or(Error::NoOwner(log.partition))?;
        let mut client = IngesterServiceClient::with_interceptor(channel, self.sender.clone());
        let answer = tokio::select! {
            answer = client.claim(encode(log, pushes)) => answer,
            () = self.clock.sleep(CLAIM_TIMEOUT) => return Err(Error::NoOwner(log.partition)),
        };
        let wire::ClaimResponse { job, fence, taken } = answer.map_err(Error::Claim)?.into_inner();
        Ok(Claimed { tenure: Some(Lease { job, fence }), taken })
    }
}

fn encode(log: LogId, pushes: &[Pushed]) -> wire::ClaimRequest {
    let ids: Vec<u8> = pushes.iter().flat_map(|push| push.key.1.0).collect();
    wire::ClaimRequest {
        log: Some(encode_log(log)),
        tenants: pushes.iter().map(|push| push.key.0.0).collect(),
        ids: Bytes::from(ids),
        times_ns: pushes.iter().map(|push| push.time_ns).collect(),
    }
}

/// The log and the pushes that are asked about, or what is wrong with the message.
pub(crate) fn decode(request: wire::ClaimRequest) -> Result<(LogId, Vec<Pushed>), String> {
    let wire::ClaimRequest { log, tenants, ids, times_ns } = request;
    let log = decode_log(log).map_err(|error| error.to_string())?;
    let (ids, rest) = ids.as_chunks::<16>();
    if !rest.is_empty() || ids.len() != tenants.len() || ids.len() != times_ns.len() {
        return Err("columns of a claim differ in length".to_owned());
    }
    let pushes = tenants.iter().zip(ids).zip(times_ns);
    let pushed = |((tenant, id), time_ns): ((&u32, &[u8; 16]), i64)| Pushed {
        key: (TenantNumber(*tenant), ProfileId(*id)),
        time_ns,
    };
    Ok((log, pushes.map(pushed).collect()))
}

/// The owner's answer. One without a tenure, of a process without others, is nobody's: its fence never is one.
pub(crate) fn encode_answer(claimed: Claimed) -> wire::ClaimResponse {
    let (job, fence) = claimed.tenure.map_or_else(Default::default, |lease| (lease.job, lease.fence));
    wire::ClaimResponse { job, fence, taken: claimed.taken }
}

#[cfg(test)]
mod tests {
    use cambium_model::block::Partition;

    use super::*;

    #[test]
    fn what_is_asked_arrives_whole_or_not_at_all() {
        let log = LogId { partition: Partition(3), log: 7 };
        let push =
            |n: u8| Pushed { key: (TenantNumber(n.into()), ProfileId([n; 16])), time_ns: -i64::from(n) };
        let pushes: Vec<Pushed> = (0..5).map(push).collect();
        assert_eq!(decode(encode(log, &pushes)), Ok((log, pushes.clone())));
        let short = wire::ClaimRequest { ids: Bytes::from_static(&[1; 79]), ..encode(log, &pushes) };
        assert!(decode(short).is_err());
        let short = wire::ClaimRequest { times_ns: vec![1], ..encode(log, &pushes) };
        assert!(decode(short).is_err());
        assert!(decode(wire::ClaimRequest { log: None, ..encode(log, &pushes) }).is_err());
    }
}
