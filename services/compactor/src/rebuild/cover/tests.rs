use std::fmt::Write;

use super::*;

mod lives;

use lives::World;

/// What a choice says, as a picture.
fn picture(world: &World, complete_from_ns: i64) -> String {
    let blocks: Vec<Arc<BlockMeta>> = world.bucket.values().map(|held| Arc::clone(&held.meta)).collect();
    let candidates =
        Candidates { blocks: &blocks, damaged: &world.damaged, is_wanted: &|_| true, complete_from_ns };
    let choice = choose(&candidates);
    let mut text = String::new();
    for (what, blocks) in [("kept", &choice.kept), ("superseded", &choice.superseded)] {
        let paths: Vec<&str> = blocks.iter().map(|block| block.path.as_str()).collect();
        writeln!(text, "{what}: {}", paths.join(" ")).unwrap();
    }
    choice.lost.iter().for_each(|lost| writeln!(text, "lost: {lost}").unwrap());
    for gap in &choice.gaps {
        writeln!(text, "gap: {} {}..{}", gap.log, gap.first.0, gap.next.0).unwrap();
    }
    text
}

#[track_caller]
fn check(live: impl FnOnce(&mut World), expected: &str) {
    let mut world = World::default();
    live(&mut world);
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let found = picture(&world, 0);
    assert_eq!(found.lines().map(str::trim).collect::<Vec<_>>(), expected);
}

#[test]
fn flushed_blocks_count() {
    check(
        |world| {
            world.flush(0, &[1, 2]);
            world.skip(0, 2);
            world.flush(0, &[1]);
        },
        "kept: l0/0-0-e1 l0/0-4-e1
         superseded:
         gap: 0000-00000000 2..4",
    );
}

#[test]
fn a_merge_counts_for_what_it_was_made_of() {
    let live = |world: &mut World| {
        world.flush(0, &[1, 2]);
        world.flush(0, &[1, 2, 4]);
        world.merge_log(0, 2, None);
    };
    check(
        live,
        "kept: l1/f1-0 l1/f1-1
         superseded: l0/0-0-e1 l0/0-2-e1",
    );
    check(
        |world| {
            live(world);
            world.sweep(1);
        },
        "kept: l1/f1-0 l1/f1-1
         superseded: l0/0-2-e1",
    );
}

#[test]
fn a_merge_that_lacks_a_part_counts_for_nothing_while_its_inputs_are_there() {
    check(
        |world| {
            world.flush(0, &[1, 2]);
            world.flush(0, &[1, 2]);
            world.merge_log(0, 2, Some(1));
        },
        "kept: l0/0-0-e1 l0/0-2-e1
         superseded: l1/f1-0",
    );
}

#[test]
fn what_is_lost_is_said() {
    check(
        |world| {
            world.flush(0, &[1, 2]);
            world.merge_log(0, 1, None);
            world.sweep(1);
            world.bucket.remove("l1/f1-1");
        },
        "kept: l1/f1-0
         superseded:
         lost: parts that were written together with l1/f1-0 are gone, with tenants' or services' records of log 0000-00000000 from 0 to before 2;",
    );
    check(
        |world| {
            world.flush(0, &[1]);
            world.damage("l0/0-0-e1");
        },
        "kept:
         superseded:
         lost: l0/0-0-e1 is damaged",
    );
}

#[test]
fn a_part_that_was_merged_on_is_not_lost() {
    check(
        |world| {
            world.flush(0, &[1, 2]);
            world.merge_log(0, 1, None);
            world.flush(0, &[1]);
            world.merge_log(0, 1, None);
            world.merge_owner(1, &[0, 1], None);
            world.sweep(9);
        },
        "kept: l1/f1-1 l2/f3-0
         superseded:",
    );
}

#[test]
fn a_flush_of_a_lost_epoch_gives_way_to_the_next_owners() {
    check(
        |world| {
            world.zombie(0, &[1, 2, 1]);
            world.take(0, 2);
            world.take(0, 1);
            world.flush(0, &[1]);
        },
        "kept: l0/0-0-e2 l0/0-2-e2 l0/0-3-e2
         superseded: l0/0-0-e1",
    );
}

#[test]
fn an_attempt_that_was_not_committed_gives_way_to_what_holds_more() {
    check(
        |world| {
            world.flush(0, &[1, 2]);
            world.merge_log(0, 1, Some(9));
            world.flush(0, &[1, 2]);
            world.merge_log(0, 2, None);
            world.sweep(9);
        },
        "kept: l1/f2-0 l1/f2-1
         superseded: l1/f1-0 l1/f1-1",
    );
}
