//! Nested groups, with the keys in order and without.
#![cfg(feature = "nested")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use emdb::{Emdb, Error};

fn both() -> [Emdb; 2] {
    [false, true].map(|ordered| Emdb::builder().enable_range_scans(ordered).build().unwrap())
}

fn keys(records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = records.map(|(key, _)| key).collect();
    keys.sort();
    keys
}

fn filled(db: &Emdb) {
    for key in [
        "user",
        "user.",
        "user.a",
        "user.b.c",
        "user.\u{ff}",
        "user/a",
        "username",
        "us",
        "",
    ] {
        db.insert(key, key).unwrap();
    }
}

#[test]
fn a_group_is_what_lies_below_the_prefix_and_a_dot() {
    for db in both() {
        filled(&db);
        let expected =
            ["user.", "user.a", "user.b.c", "user.\u{ff}"].map(|key| key.as_bytes().to_vec());
        assert_eq!(keys(db.group("user").unwrap()), expected);
        assert_eq!(keys(db.focus("user").iter().unwrap()), expected);
        assert_eq!(
            keys(db.focus("user").focus("b").iter().unwrap()),
            [b"user.b.c"]
        );
        assert_eq!(db.group("nobody").unwrap().count(), 0);
        assert!(db.group("user").unwrap().error().is_none());
    }
}

#[test]
fn deleting_a_group_leaves_the_rest() {
    for db in both() {
        filled(&db);
        let group = db.group("user").unwrap();
        assert_eq!(db.delete_group("user").unwrap(), 4);
        assert_eq!(db.delete_group("user").unwrap(), 0);
        let left = ["", "us", "user", "user/a", "username"].map(|key| key.as_bytes().to_vec());
        assert_eq!(keys(db.iter().unwrap()), left);
        assert_eq!(group.count(), 4, "a snapshot");
    }
}

#[test]
fn a_focus_joins_with_dots() {
    for db in both() {
        let space = db.namespace("space").unwrap();
        let deep = space.focus("a").focus("b");
        deep.set("c", "1").unwrap();
        deep.insert("d", "2").unwrap();
        assert_eq!(space.get("a.b.c").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(deep.get("d").unwrap().as_deref(), Some(&b"2"[..]));
        assert!(deep.contains_key("c").unwrap());
        assert!(!space.focus("a").contains_key("c").unwrap());
        assert_eq!(deep.remove("c").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(space.focus("a").delete_all().unwrap(), 1);
        assert!(space.is_empty().unwrap());
        assert!(db.is_empty().unwrap());
    }
}

#[cfg(feature = "ttl")]
#[test]
fn a_group_hides_what_has_expired() {
    for db in both() {
        let focus = db.focus("session");
        focus
            .set_with_ttl("old", "", emdb::Ttl::ExpiresAt(1))
            .unwrap();
        focus.set_with_ttl("new", "", emdb::Ttl::None).unwrap();
        assert_eq!(keys(focus.iter().unwrap()), [b"session.new"]);
        assert_eq!(focus.get("old").unwrap(), None);
    }
}

#[test]
fn an_empty_part_is_an_invalid_path() {
    for db in both() {
        filled(&db);
        assert!(matches!(db.group("").map(drop), Err(Error::InvalidPath)));
        assert!(matches!(db.delete_group(""), Err(Error::InvalidPath)));
        for focus in [
            db.focus(""),
            db.focus("user").focus(""),
            db.focus("").focus("user"),
        ] {
            assert!(matches!(focus.set("a", ""), Err(Error::InvalidPath)));
            assert!(matches!(focus.get("a"), Err(Error::InvalidPath)));
            assert!(matches!(focus.remove("a"), Err(Error::InvalidPath)));
            assert!(matches!(focus.contains_key("a"), Err(Error::InvalidPath)));
            assert!(matches!(focus.iter().map(drop), Err(Error::InvalidPath)));
            assert!(matches!(focus.delete_all(), Err(Error::InvalidPath)));
        }
        assert_eq!(db.len().unwrap(), 9);
    }
}
