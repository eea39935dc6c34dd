//! Restarts, and names that two nodes have.

use std::sync::Arc;

use super::*;
use crate::node::WIRE_VERSION_MAX;
use crate::node::tests::newer;
use crate::swim::codec::WireCodec;
use crate::swim::identity::Identity;
use crate::swim::packet::Kind;
use foca::{Codec, Member};

fn me(simulation: &Simulation, index: usize) -> Option<Arc<Node>> {
    simulation.view(index).me().map(Arc::clone)
}

fn lost_its_name(simulation: &Simulation, index: usize) -> bool {
    simulation.hosts[index].notes.iter().any(|note| matches!(note, Note::NameLost { .. }))
}

#[test]
fn a_restarted_node_is_there_at_once() {
    // Its clock may have gone on, stood still, or gone back.
    for ahead in [1, 0, -300_000_000_000] {
        let mut simulation = Simulation::of(1, 5);
        let before = me(&simulation, 4).unwrap().generation;
        simulation.kill(4);
        simulation.run(millis(100));
        simulation.start(4, KEY, before.saturating_add_signed(ahead));
        let took = simulation.run_until_converged(seconds(15));
        assert!(took.is_some(), "clock {ahead}: {:?}", simulation.names(0));
        if ahead != 0 {
            assert!(me(&simulation, 0).is_some() && me(&simulation, 4).unwrap().generation > before);
            assert!(took.unwrap() < seconds(2), "clock {ahead}: {took:?}");
        }
        let disputes = simulation.hosts.iter().flat_map(|host| &host.notes);
        assert_eq!(disputes.filter(|note| matches!(note, Note::NameDisputed { .. })).count(), 0);
    }
}

#[test]
fn a_node_that_comes_back_elsewhere_is_the_same_node() {
    // Where the clock is behind it must wait until the node that it was is known to be dead.
    for (behind, bound) in [(false, seconds(2)), (true, seconds(10))] {
        let mut simulation = Simulation::of(1, 5);
        simulation.kill(4);
        let generation = if behind { 1 } else { u64::MAX / 2 };
        let elsewhere = simulation.add_of("n4", KEY, generation);
        let back =
            |simulation: &Simulation| me(simulation, elsewhere).is_some() && simulation.has_converged();
        assert!(simulation.run_until(bound, back).is_some(), "behind: {behind}");
        assert_eq!(simulation.names(0), ["n0", "n1", "n2", "n3", "n4"]);
        assert_eq!(lost_its_name(&simulation, elsewhere), behind);
    }
}

#[test]
fn of_two_nodes_of_a_name_the_later_has_it_for_as_long_as_it_lives() {
    let mut simulation = Simulation::of(1, 5);
    let later = simulation.add("n4", KEY);
    let settled = |simulation: &Simulation| lost_its_name(simulation, 4) && simulation.has_converged();
    simulation.run_until(seconds(15), settled).expect("the earlier yields");
    let disputed = |host: &Host| host.notes.iter().any(|note| matches!(note, Note::NameDisputed { .. }));
    assert!(simulation.hosts.iter().any(disputed), "loudly");
    for _ in 0..60 {
        simulation.run(seconds(1));
        assert_eq!((me(&simulation, 4), simulation.names(4)), (None, Vec::new()));
        let holder = me(&simulation, later).unwrap();
        assert_eq!(simulation.view(0).get(&holder.name), Some(&holder));
    }
    simulation.kill(later);
    let has_it_back = |simulation: &Simulation| me(simulation, 4).is_some() && simulation.has_converged();
    simulation.run_until(seconds(40), has_it_back).expect("the name is free");
    assert_eq!(me(&simulation, 4).unwrap().gossip, simulation.hosts[4].node.gossip);
    assert_eq!(simulation.names(0), ["n0", "n1", "n2", "n3", "n4"]);
}

#[test]
fn a_node_of_a_newer_build_is_passed_on_as_it_came_and_not_used() {
    let mut simulation = Simulation::of(1, 3);
    let silent = Node { gossip: "10.9.9.9:7946".parse().unwrap(), ..node("newer", "z") };
    let bytes = Bytes::from(newer(&silent, WIRE_VERSION_MAX + 1));
    let mut message = Vec::new();
    let member = Member::alive(Identity::decode(bytes.clone()).unwrap());
    WireCodec.encode_member(&member, &mut message).unwrap();
    let sealer = Sealer::new("c", ClusterKey::from_setting(KEY).unwrap());
    let packet = sealer.seal(Kind::Join, &message, &mut simulation.rng);
    simulation.handle(0, Event::Packet(&packet));
    let seen =
        |simulation: &Simulation| (0..3).all(|index| simulation.names(index).contains(&"newer".to_owned()));
    simulation.run_until(seconds(2), seen).expect("it is seen by all");
    for index in 0..3 {
        let core = simulation.hosts[index].core.as_ref().unwrap();
        assert_eq!(core.description(&silent.name), Some(bytes.clone()), "what {index} would pass on");
        let node = core.view().get(&silent.name).unwrap();
        assert!(!node.is_compatible() && !node.is_usable());
    }
}
