//! Random puts, deletes, crashes and reopenings against a map.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    Delete(u8),
    /// Several at once; none is a delete.
    Batch(Vec<(u8, Option<u16>)>),
    Wait,
    Reopen,
    /// Go on from what a crash would leave, with so much rubbish behind its last record.
    Crash(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12u8, 0..900u16).prop_map(|(key, length)| Step::Put(key, length)),
        5 => (0..12u8).prop_map(Step::Delete),
        3 => prop::collection::vec((0..12u8, prop::option::of(0..400u16)), 0..6).prop_map(Step::Batch),
        2 => Just(Step::Wait),
        1 => Just(Step::Reopen),
        1 => any::<u16>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_it_holds_what_was_acknowledged(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        // All states since the last one known durable: a crash may leave any of them.
        let mut states = vec![(Lsn(0), Model::new())];
        for step in steps {
            let mut model = states.last().unwrap().1.clone();
            match step {
                Step::Put(key, length) => {
                    let value = vec![key ^ 0x55; length.into()];
                    let lsn = journal.put(&[key], &[&value]).unwrap();
                    model.insert(vec![key], value);
                    states.push((lsn, model));
                }
                Step::Delete(key) => {
                    let lsn = journal.delete(&[key]).unwrap();
                    model.remove(&[key][..]);
                    states.push((lsn, model));
                }
                Step::Batch(changes) => {
                    let owned: Vec<_> = changes
                        .iter()
                        .map(|(key, length)| {
                            let value = length.map(|length| vec![key ^ 0xaa; length.into()]);
                            ([*key], value)
                        })
                        .collect();
                    for (key, value) in &owned {
                        match value {
                            Some(value) => model.insert(key.to_vec(), value.clone()),
                            None => model.remove(&key[..]),
                        };
                    }
                    let parts: Vec<_> = owned.iter().map(|(_, value)| value.as_deref()).collect();
                    let writes: Vec<_> = owned
                        .iter()
                        .zip(&parts)
                        .map(|((key, _), part)| match part {
                            Some(part) => Change::Put { key, parts: std::slice::from_ref(part) },
                            None => Change::Delete { key },
                        })
                        .collect();
                    let lsn = journal.batch(&writes).unwrap();
                    states.push((lsn, model));
                }
                Step::Wait => {
                    settle(&journal, states.last().unwrap().0);
                    states.drain(..states.len() - 1);
                }
                Step::Reopen => {
                    drop(journal);
                    let (opened, replay) = open(dir.path());
                    journal = opened;
                    prop_assert_eq!(&replayed(replay), &model);
                    states = vec![(journal.durable(), model)];
                }
                Step::Crash(cut) => {
                    // The committer goes on meanwhile: acknowledged is what was before the copy.
                    let acknowledged = journal.durable();
                    let crashed = retry_snapshot(dir.path());
                    drop(journal);
                    if let Some(path) = segments(crashed.path()).pop() {
                        // Nothing is written behind a header that is not durable.
                        let torn = OpenOptions::new().append(true).open(path).unwrap();
                        if torn.metadata().unwrap().len() >= 32 {
                            let tail = vec![0xa5; usize::from(cut % 90)];
                            io::Write::write_all(&mut &torn, &tail).unwrap();
                        }
                    }
                    dir = crashed;
                    let (opened, replay) = open(dir.path());
                    journal = opened;
                    let found = replayed(replay);
                    let possible = states.iter().enumerate().any(|(at, (_, state))| {
                        let next = states.get(at + 1).is_none_or(|(lsn, _)| *lsn > acknowledged);
                        next && *state == found
                    });
                    prop_assert!(possible, "{:?} is no state after {:?}", found, acknowledged);
                    states = vec![(journal.durable(), found)];
                }
            }
            let model = &states.last().unwrap().1;
            for key in 0..12u8 {
                let found = journal.get(&[key]).unwrap().map(|value| value.to_vec());
                prop_assert_eq!(found.as_ref(), model.get(&[key][..]));
            }
        }
    }
}

/// A copy while the committer works: files may go between listing and copying, but a segment is
/// deleted only when what replaces it is durable, so the copy is made again until nothing moved.
fn retry_snapshot(directory: &Path) -> tempfile::TempDir {
    loop {
        let before = segments(directory);
        let copy = tempfile::tempdir().unwrap();
        let to = copy.path().join("journals/queue");
        fs::create_dir_all(&to).unwrap();
        let whole = before
            .iter()
            .all(|path| fs::copy(path, to.join(path.file_name().unwrap())).is_ok());
        if whole && segments(directory) == before {
            return copy;
        }
    }
}
