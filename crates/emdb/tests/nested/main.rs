//! Nested groups, with the keys in order and without.
#![cfg(feature = "nested")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;

use emdb::{Emdb, Error, Result};

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

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The part of a map that a group is.
fn group_of(map: &Map, prefix: &str) -> Map {
    let prefix = format!("{prefix}.").into_bytes();
    let mut group = map.clone();
    group.retain(|key, _| key.starts_with(&prefix));
    group
}

fn check_groups(db: &Emdb, map: &Map) -> Result<()> {
    for prefix in ["user", "user.b", "session", "user.", "nobody"] {
        let expected = group_of(map, prefix);
        let mut group = db.group(prefix)?;
        assert_eq!(group.by_ref().collect::<Map>(), expected, "{prefix}");
        assert!(group.error().is_none());
        let focus = db.focus(prefix);
        assert_eq!(focus.iter()?.count(), expected.len());
        for part in ["a", "b.c", "c", "new", ""] {
            let key = format!("{prefix}.{part}").into_bytes();
            assert_eq!(focus.get(part)?.as_ref(), map.get(&key));
            assert_eq!(focus.contains_key(part)?, map.contains_key(&key));
        }
    }
    assert_eq!(db.iter()?.collect::<Map>(), *map);
    Ok(())
}

/// Stores members of groups, clears, and stores others, in one transaction; perhaps a
/// savepoint takes the clear back.
fn clear_between(db: &Emdb, map: &mut Map, is_taken_back: bool) -> Result<()> {
    let committed = map.clone();
    let tx = db.begin()?;
    let insert = |map: &mut Map, keys: &[&str], value: &str| {
        keys.iter().try_for_each(|key| {
            map.insert(key.as_bytes().to_vec(), value.as_bytes().to_vec());
            tx.insert(key, value)
        })
    };
    insert(
        map,
        &["user.a", "user.b.c", "user.", "session.old"],
        "before",
    )?;
    let (savepoint, kept) = (tx.savepoint()?, map.clone());
    tx.clear()?;
    map.clear();
    insert(map, &["user.new", "user.b.c", "user", "user.b.d"], "after")?;
    if is_taken_back {
        tx.rollback_to(savepoint)?;
        *map = kept;
    }
    // Groups are what is committed.
    check_groups(db, &committed)?;
    tx.commit()?;
    check_groups(db, map)
}

#[test]
fn groups_are_what_a_transaction_stored_since_its_last_clear() -> Result<()> {
    for ordered in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let [path, killed] = ["db", "killed"].map(|name| directory.path().join(name));
        let open = |path| {
            let builder = Emdb::builder().path(path).enable_range_scans(ordered);
            builder.build()
        };
        let mut map = Map::new();
        for is_taken_back in [false, true, true, false, false] {
            let db = open(&path)?;
            check_groups(&db, &map)?;
            clear_between(&db, &mut map, is_taken_back)?;
            // As a kill would leave it.
            std::fs::copy(&path, &killed).unwrap();
            check_groups(&open(&killed)?, &map)?;
            let deleted = group_of(&map, "user.b");
            assert_eq!(db.delete_group("user.b")?, deleted.len());
            map.retain(|key, _| !deleted.contains_key(key));
            db.insert("session.kept", "between")?;
            map.insert(b"session.kept".to_vec(), b"between".to_vec());
            check_groups(&db, &map)?;
            db.close()?;
        }
    }
    Ok(())
}
