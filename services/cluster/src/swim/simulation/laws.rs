//! What holds of views whatever the network does.

use super::*;
use crate::swim::packet::Refusal;

/// In which a killed node has left every view, with the default settings.
const DEATH_SEEN: Duration = Duration::from_secs(6);

/// In which views are right after the last fault: a few rounds of asking the join list and those that are down.
const HEALED: Duration = Duration::from_secs(60);

/// A minute of everything that can go wrong.
fn storm(seed: u64) -> Simulation {
    let mut simulation = Simulation::of(seed, 8);
    for _ in 0..12 {
        simulation.network = match simulation.rng.random_range(0..3) {
            0 => Network::good(),
            1 => Network::bad(),
            _ => Network { cut_at: Some(simulation.rng.random_range(1..8)), ..Network::bad() },
        };
        let index = simulation.rng.random_range(0..simulation.hosts.len());
        if simulation.hosts[index].core.is_some() {
            match simulation.rng.random_range(0..4) {
                0 => simulation.kill(index),
                1 => simulation.handle(index, Event::SetState(NodeState::ReadOnly)),
                2 => simulation.handle(index, Event::SetState(NodeState::Active)),
                _ => simulation.handle(index, Event::Leave),
            }
        } else {
            let generation = simulation.now.as_nanos() as u64;
            simulation.start(index, KEY, generation);
        }
        simulation.run(seconds(5));
    }
    simulation.network = Network::good();
    if (0..simulation.seeds).all(|index| simulation.hosts[index].core.is_none()) {
        // Whoever starts knows nobody but the join list: one of it must live.
        let generation = simulation.now.as_nanos() as u64;
        simulation.start(0, KEY, generation);
    }
    simulation
}

#[test]
fn views_converge_after_the_last_fault() {
    let mut longest = Duration::ZERO;
    for seed in 0..12 {
        let mut simulation = storm(seed);
        let Some(took) = simulation.run_until_converged(HEALED) else {
            let views: Vec<_> = simulation.living().map(|index| (index, simulation.names(index))).collect();
            panic!("seed {seed}: after {HEALED:?} the views are {views:#?}");
        };
        longest = longest.max(took);
    }
    println!("views were right at most {longest:?} after the last fault");
}

#[test]
fn a_seed_replays_exactly() {
    let trace = |seed| storm(seed).trace();
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_killed_node_leaves_every_view_in_time() {
    for (nodes, rounds) in [(2, 5), (3, 10), (5, 10), (25, 5), (100, 1)] {
        let mut longest = Duration::ZERO;
        let mut simulation = Simulation::of(nodes as u64, nodes);
        for round in 0..rounds {
            simulation.run(seconds(3));
            simulation.kill(round % nodes);
            let took = simulation.run_until_converged(DEATH_SEEN).expect("a dead node is seen");
            longest = longest.max(took);
            let generation = simulation.now.as_nanos() as u64;
            simulation.start(round % nodes, KEY, generation);
            simulation.run_until_converged(HEALED).expect("it is seen again");
        }
        println!("of {nodes} nodes one that was killed was gone from every view after at most {longest:?}");
    }
}

#[test]
fn a_goodbye_is_known_in_two_rounds_of_gossip() {
    let bound = Config::default().gossip_interval.0 * 2 + millis(20);
    for nodes in [2, 3, 9, 25] {
        let mut simulation = Simulation::of(1, nodes);
        simulation.handle(1, Event::Leave);
        let leaver = |simulation: &Simulation, index| simulation.names(index).contains(&"n1".to_owned());
        let gone = |simulation: &Simulation| {
            simulation.living().filter(|index| *index != 1).all(|index| !leaver(simulation, index))
        };
        assert!(simulation.run_until(bound, gone).is_some(), "{nodes} nodes");
        simulation.run(seconds(1));
        assert!(simulation.hosts[1].core.is_none(), "it has told everybody and stopped");
        assert!(simulation.has_converged());
    }
}

#[test]
fn a_node_that_stood_still_is_back_soon_and_takes_nobody_for_dead() {
    for nodes in [2, 5] {
        let mut simulation = Simulation::of(1, nodes);
        simulation.stop(1);
        simulation.run(seconds(60));
        assert!(simulation.has_converged(), "it is missed meanwhile");
        simulation.hosts.iter_mut().for_each(|host| host.notes.clear());
        simulation.go_on(1);
        assert!(simulation.run_until_converged(seconds(15)).is_some(), "{:?}", simulation.names(0));
        let bystanders = simulation.hosts.iter().enumerate().filter(|(index, _)| *index != 1);
        let mut notes = bystanders.flat_map(|(_, host)| &host.notes);
        assert!(!notes.any(|note| matches!(note, Note::Down(_) | Note::Rejoined)), "{nodes} nodes");
    }
}

#[test]
fn two_that_were_cut_off_meet_again_though_all_of_the_join_list_are_dead() {
    let mut simulation = Simulation::of(1, 5);
    (0..3).for_each(|index| simulation.kill(index));
    simulation.network.cut_at = Some(4);
    simulation.run(seconds(60));
    assert_eq!((simulation.names(3), simulation.names(4)), (vec!["n3".to_owned()], vec!["n4".to_owned()]));
    simulation.network = Network::good();
    assert!(simulation.run_until_converged(seconds(15)).is_some());
}

#[test]
fn dead_nodes_are_forgotten() {
    let mut simulation = Simulation::of(1, 3);
    simulation.kill(2);
    simulation.run_until_converged(DEATH_SEEN).unwrap();
    let down = |simulation: &Simulation| simulation.view(0).down().len();
    assert_eq!(down(&simulation), 1);
    simulation.run(Config::default().forget_after.0 + seconds(1));
    assert_eq!(down(&simulation), 0);
    assert!(simulation.has_converged());
}

#[test]
fn a_stranger_never_appears() {
    let mut simulation = Simulation::of(1, 5);
    let stranger = simulation.add("stranger", "the key of another cluster");
    let plain = simulation.add("plain", "");
    for _ in 0..30 {
        simulation.run(seconds(1));
        for index in 0..5 {
            assert_eq!(simulation.names(index), ["n0", "n1", "n2", "n3", "n4"]);
        }
        assert_eq!(simulation.names(stranger), ["stranger"]);
        assert_eq!(simulation.names(plain), ["plain"]);
    }
    let refused = |reason| {
        let notes = simulation.hosts[..5].iter().flat_map(|host| &host.notes);
        notes.filter(|note| **note == Note::Refused(reason)).count()
    };
    assert!(refused(Refusal::Key) > 0 && refused(Refusal::Mode) > 0, "and is counted");
}

#[test]
fn what_a_member_sends_does_not_depend_on_how_many_there_are() {
    const SPAN: Duration = Duration::from_secs(10);
    let rates: Vec<f64> = [25, 200]
        .map(|nodes| {
            let mut simulation = Simulation::of(1, nodes);
            // Until what was told of the joins has been passed on as often as it is.
            simulation.run(seconds(10));
            let sent = |simulation: &Simulation| simulation.hosts.iter().map(|host| host.sent).sum::<u64>();
            let before = sent(&simulation);
            simulation.run(SPAN);
            assert!(simulation.has_converged());
            let rate = (sent(&simulation) - before) as f64 / nodes as f64 / SPAN.as_secs_f64();
            println!("{nodes} members: {rate:.2} packets a second from each");
            rate
        })
        .to_vec();
    let (least, most) = rates.iter().fold((f64::MAX, 0.0_f64), |(a, b), rate| (a.min(*rate), b.max(*rate)));
    assert!(most <= least * 1.25, "{rates:?}");
}
