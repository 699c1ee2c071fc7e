use super::*;
use crate::{DeviceKey, Enrolment};
use ca::{Authority, AuthorityConfig, RevocationReason};
use policy::Realm;
use std::{collections::BTreeMap, time::Duration};
use store::{Store, StoreError};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

struct House {
    directory: tempfile::TempDir,
    fleet: Option<(Store, Fleet)>,
}

impl House {
    fn new() -> Self {
        let mut house = Self {
            directory: tempfile::tempdir().unwrap(),
            fleet: None,
        };
        house.open();
        house
    }

    fn open(&mut self) {
        self.fleet = None;
        let path = self.directory.path();
        let config = AuthorityConfig {
            name: "test".into(),
            public_url: "http://localhost:8880".into(),
        };
        let authority = Authority::open_or_create(&path.join("ca"), config, at(0)).unwrap();
        // A fleet that was dropped lets go of its store once its threads have looked up.
        let store = loop {
            match Store::open(&path.join("store")) {
                Err(StoreError::InUse { .. }) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        let realm = Realm::live("000000000000");
        let fleet = Fleet::open(&store, Arc::new(authority), realm, at(0)).unwrap();
        self.fleet = Some((store, fleet));
    }

    fn fleet(&self) -> &Fleet {
        &self.fleet.as_ref().unwrap().1
    }

    fn by(&self, name: &str, operation: &str, seconds: u64) -> Fleet {
        let acting = Acting::new(Doer::Operator, Some(name.into()), operation, at(seconds));
        self.fleet().acting(Arc::new(acting))
    }

    /// Has the chain end behind the last entry.
    fn chain(&mut self) {
        self.open();
    }

    fn shown(&self, filter: &DeedFilter) -> Vec<(String, What, String)> {
        let page = self.fleet().deeds(filter, None, 100).unwrap();
        let told = page.items.into_iter().map(|found| {
            let deed = found.deed;
            (deed.operation, deed.what, deed.thing.unwrap_or_default())
        });
        told.collect()
    }
}

fn enrolment(name: &str) -> Enrolment<'static> {
    Enrolment {
        thing: name.parse().unwrap(),
        policies: Vec::new(),
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        key: DeviceKey::Generate,
    }
}

#[test]
fn who_had_a_certificate_made_and_revoked_is_recorded_with_it() {
    let house = House::new();
    let made = house
        .by("admin", "CreateDevice", 1)
        .enrol(&enrolment("lamp-1"), at(1))
        .unwrap();
    house
        .by("eve", "RevokeDevice", 2)
        .revoke_device(
            &"lamp-1".parse().unwrap(),
            RevocationReason::KeyCompromise,
            at(2),
        )
        .unwrap();
    let of_eve = DeedFilter {
        name: Some("eve".into()),
        ..DeedFilter::default()
    };
    let found = house.fleet().deeds(&of_eve, None, 10).unwrap().items;
    assert_eq!(found.len(), 1);
    let deed = &found[0].deed;
    assert_eq!(deed.what, What::Revoked);
    assert_eq!(deed.thing.as_deref(), Some("lamp-1"));
    assert_eq!(deed.certificate, Some(made.certificate.id));
    assert_eq!(deed.serial, Some(made.certificate.serial.to_string()));
    assert_eq!(deed.reason.as_deref(), Some("keyCompromise"));
    assert_eq!(deed.moment(), at(2));
    let of_lamp = DeedFilter {
        thing: Some("lamp-1".into()),
        ..DeedFilter::default()
    };
    let told = |operation: &str, what| (operation.to_owned(), what, "lamp-1".to_owned());
    assert_eq!(
        house.shown(&of_lamp),
        [
            told("RevokeDevice", What::Revoked),
            told("CreateDevice", What::Issued)
        ]
    );
}

#[test]
fn an_operation_is_recorded_once_and_one_that_failed_not_at_all() {
    let house = House::new();
    let by = house.by("admin", "CreateThing", 1);
    by.create_thing(&"t".parse().unwrap(), BTreeMap::new(), None, at(1))
        .unwrap();
    assert_eq!(
        house.shown(&DeedFilter::default()),
        [("CreateThing".to_owned(), What::Changed, "t".to_owned())]
    );
    let again = house.by("admin", "CreateThing", 2);
    again
        .enrol(&enrolment("t"), at(2))
        .expect_err("a thing of this name is there");
    assert_eq!(house.shown(&DeedFilter::default()).len(), 1);
}

#[test]
fn what_the_server_does_by_itself_is_recorded_where_certificates_are_concerned() {
    let house = House::new();
    house.fleet().enrol(&enrolment("alone"), at(3)).unwrap();
    assert_eq!(
        house.shown(&DeedFilter::default()),
        [("operator".to_owned(), What::Issued, "alone".to_owned())]
    );
}

#[test]
fn pages_lead_from_the_newest_to_the_oldest() {
    let house = House::new();
    for number in 0..7 {
        let acting = Acting::new(Doer::Server, None, &number.to_string(), at(number));
        let deed = acting.deed(What::Changed, Outcome::Done);
        house.fleet().note_deed(&deed).unwrap();
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = house
            .fleet()
            .deeds(&DeedFilter::default(), before, 3)
            .unwrap();
        seen.extend(page.items.into_iter().map(|found| found.deed.operation));
        match page.next {
            Some(next) => before = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(seen, ["6", "5", "4", "3", "2", "1", "0"]);
    let some = DeedFilter {
        since: Some(at(2)),
        until: Some(at(4)),
        ..DeedFilter::default()
    };
    assert_eq!(house.shown(&some).len(), 2);
}

#[test]
fn a_changed_and_a_missing_entry_are_found() {
    let mut house = House::new();
    for number in 0..20 {
        house
            .fleet()
            .enrol(&enrolment(&format!("t{number}")), at(number))
            .unwrap();
    }
    house.chain();
    let good = house.fleet().verify_deeds(None).unwrap();
    assert_eq!((good.entries, good.unchained), (20, 0));
    assert_eq!(good.wrong, [""; 0]);

    let table = &house.fleet().inner.table;
    let place = keeper::key(7);
    let row = table.get_as::<Deed>(&place).unwrap().unwrap().value;
    let other = Deed {
        thing: Some("other".into()),
        ..row.clone()
    };
    let put = |deed: &Deed| Write::put(place.clone(), deed, Expect::Any).unwrap();
    table.batch(&[put(&other)]).unwrap();
    assert_eq!(house.fleet().verify_deeds(None).unwrap().wrong.len(), 1);
    table.batch(&[put(&row)]).unwrap();
    assert_eq!(house.fleet().verify_deeds(None).unwrap().wrong, [""; 0]);
    table
        .batch(&[Write::delete(place.clone(), Expect::Any)])
        .unwrap();
    assert_eq!(house.fleet().verify_deeds(None).unwrap().wrong.len(), 1);

    // Whoever chains anew what they have changed is found by a head that was noted before.
    table
        .batch(&[Write::delete(keeper::HEAD, Expect::Any)])
        .unwrap();
    house.chain();
    assert_eq!(house.fleet().verify_deeds(None).unwrap().wrong, [""; 0]);
    let verified = house.fleet().verify_deeds(Some(&good.head)).unwrap();
    assert_eq!(verified.wrong.len(), 1, "{:?}", verified.wrong);
}

#[test]
fn what_is_past_the_bounds_goes_and_the_rest_is_still_chained() {
    let mut house = House::new();
    // The clock that decides is the server's: all of these are long ago or to come.
    for number in 0..10 {
        let acting = Acting::new(
            Doer::Server,
            None,
            "old",
            SystemTime::UNIX_EPOCH + Duration::from_secs(number),
        );
        let deed = acting.deed(What::Changed, Outcome::Done);
        house.fleet().note_deed(&deed).unwrap();
    }
    let acting = Acting::new(Doer::Server, None, "new", SystemTime::now());
    let deed = acting.deed(What::Changed, Outcome::Done);
    house.fleet().note_deed(&deed).unwrap();
    house.chain();
    // The thread looks at the bounds as it starts.
    let (store, fleet) = house.fleet.take().unwrap();
    drop(fleet);
    drop(store);
    house.open();
    assert_eq!(
        house.shown(&DeedFilter::default()),
        [("new".to_owned(), What::Changed, String::new())]
    );
    let verified = house.fleet().verify_deeds(None).unwrap();
    assert_eq!((verified.entries, verified.from), (1, 10));
    assert_eq!(verified.wrong, [""; 0]);
    assert_eq!(
        house
            .fleet()
            .verify_deeds(Some(&verified.head))
            .unwrap()
            .wrong,
        [""; 0]
    );
    let gone = Head {
        upto: 5,
        hash: "0".repeat(64),
    };
    let verified = house.fleet().verify_deeds(Some(&gone)).unwrap();
    assert_eq!(
        verified.wrong, [""; 0],
        "what has gone as the bounds have it"
    );
    assert!(verified.unknown.unwrap().contains("not kept any more"));
}
