//! Builds the Nix database of an image, for a Nix that runs in it.
//! Stage: layer. Input: [`Closure`]. Output: the bytes of `db.sqlite`.
//!
//! SQLite itself writes the database, in memory, from rows in a fixed order: the bytes are the same
//! on every build. The fields of the file's header that differ between versions of SQLite, or
//! between writes, are set to constants.

use rusqlite::{Connection, params};

use crate::closure::{Closure, NodeIdx};
use crate::store::Store;

/// The version of the schema, as in `/nix/var/nix/db/schema`.
pub const SCHEMA_VERSION: &str = "10";

/// Nix's own schema (Nix, `src/libstore/schema.sql` and `ca-specific-schema.sql` is added by
/// Nix when it needs it). The page size is SQLite's default today, and pinned.
const SCHEMA: &str = "
pragma page_size = 4096;
pragma encoding = 'UTF-8';
create table ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
create table Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index IndexReferrer on Refs(referrer);
create index IndexReference on Refs(reference);
create trigger DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create table DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index IndexDerivationOutputs on DerivationOutputs(path);
";

/// The time of every registration: the clock is not used, and to some programs 0 means never.
const REGISTRATION_TIME: i64 = 1;

/// Builds a database in which these paths, and no others, are valid.
///
/// # Errors
/// Fails if SQLite fails, for which there is no reason: no file is read or written.
pub fn nix_database(closure: &Closure) -> Result<Vec<u8>, rusqlite::Error> {
    let mut database = Connection::open_in_memory()?;
    database.execute_batch(SCHEMA)?;
    let transaction = database.transaction()?;
    {
        let mut insert = transaction.prepare(
            "insert into ValidPaths (id, path, hash, registrationTime, narSize) values (?, ?, ?, ?, ?)",
        )?;
        for (id, info) in (1i64..).zip(closure.infos()) {
            let path = Store::default().print(&info.path);
            let hash = info.nar_hash.to_base16();
            insert.execute(params![id, path, hash, REGISTRATION_TIME, info.nar_size as i64])?;
        }
        let id = |node: NodeIdx| node.index() as i64 + 1;
        let mut insert =
            transaction.prepare("insert into Refs (referrer, reference) values (?, ?)")?;
        for node in closure.nodes() {
            for reference in closure.graph().references_and_itself(node) {
                insert.execute([id(node), id(reference)])?;
            }
        }
    }
    transaction.commit()?;
    database.execute_batch("vacuum")?;
    let mut bytes = database.serialize("main")?.to_vec();
    pin_header(&mut bytes);
    Ok(bytes)
}

/// Sets the fields of the header that count writes and name the program that wrote last (SQLite,
/// "Database File Format", 1.3). Other programs use them to manage their caches, for which any
/// consistent value is right.
fn pin_header(bytes: &mut [u8]) {
    const CHANGE_COUNTER: usize = 24;
    const SCHEMA_COOKIE: usize = 40;
    const VERSION_VALID_FOR: usize = 92;
    const VERSION: usize = 96;
    for (field, value) in
        [(CHANGE_COUNTER, 1u32), (SCHEMA_COOKIE, 1), (VERSION_VALID_FOR, 1), (VERSION, 3_040_000)]
    {
        bytes[field..field + 4].copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::closure::{NarHash, ValidPathInfo};
    use crate::digest::Digest;
    use crate::store::StorePath;

    fn path(digit: char, name: &str) -> StorePath {
        format!("{}-{name}", digit.to_string().repeat(32)).parse().unwrap()
    }

    fn infos() -> Vec<ValidPathInfo> {
        let info = |path: StorePath, nar_size, references: &[&StorePath]| ValidPathInfo {
            path,
            nar_hash: NarHash::new([7; 32]),
            nar_size,
            references: references.iter().map(|path| (*path).clone()).collect(),
        };
        let (a, b) = (path('a', "a"), path('b', "b"));
        vec![
            info(a.clone(), 120, &[&a]),
            info(b.clone(), 130, &[&a]),
            info(path('c', "c"), 140, &[&b, &a, &path('z', "elsewhere")]),
            info(path('z', "elsewhere"), 150, &[]),
        ]
    }

    /// Returns a closure from which a path was removed.
    fn closure(infos: &[ValidPathInfo]) -> Closure {
        let whole = Closure::new(infos.to_vec()).unwrap();
        whole.without(&BTreeSet::from([path('z', "elsewhere")]))
    }

    #[test]
    fn sqlite_finds_it_sound_and_complete() {
        let bytes = nix_database(&closure(&infos())).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let database = Connection::open(file.path()).unwrap();
        let text =
            |query: &str| database.query_row(query, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(text("pragma integrity_check"), "ok");
        assert_eq!(text("pragma journal_mode"), "delete");
        let rows = text(
            "select group_concat(p.path || ' ' || p.hash || ' ' || p.registrationTime || ' ' || p.narSize, ';') from ValidPaths p where id = 2",
        );
        assert_eq!(
            rows,
            format!("/nix/store/{}-b sha256:{} 1 130", "b".repeat(32), "07".repeat(32))
        );
        let references = text(
            "select group_concat(referrer || '>' || reference) from (select * from Refs order by 1, 2)",
        );
        assert_eq!(references, "1>1,2>1,3>1,3>2");
    }

    /// Checks the bytes: a new digest here changes every image with a database.
    #[test]
    fn bytes_never_change() {
        let digest = Digest::of(&nix_database(&closure(&infos())).unwrap()).to_string();
        assert_eq!(
            digest,
            "sha256:4d4f319674a3a9b000c45c47078aabf34eeee753a8cb1bfc192cbc672a8b480d"
        );
    }

    proptest! {
        #[test]
        fn order_does_not_matter(infos in Just(infos()).prop_shuffle()) {
            prop_assert_eq!(nix_database(&closure(&infos)).unwrap(), nix_database(&closure(&super::tests::infos())).unwrap());
        }
    }
}
