//! The Nix database of an image, for a Nix that runs in it.
//! Stage: layer. Input: [`Closure`], and a base image's database. Output: the bytes of `db.sqlite`.
//!
//! SQLite itself writes the database, in memory, from rows in a fixed order: the bytes are the same
//! on every build. The fields of the file's header that differ between versions of SQLite, or
//! between writes, are set to constants.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, params};
use thiserror::Error;

use crate::closure::{Closure, NodeIdx};
use crate::store::{Store, StorePath};

/// The directory of Nix's database.
pub const DATABASE_DIR: &str = "/nix/var/nix/db";
/// The name of the database file.
pub const DATABASE: &str = "db.sqlite";
/// The name of the file beside it that has the version of the schema.
pub const SCHEMA_FILE: &str = "schema";

/// The version of the schema, as in `/nix/var/nix/db/schema`.
pub const SCHEMA_VERSION: &str = "10";

/// The schema of Nix (`src/libstore/schema.sql`; Nix adds `ca-specific-schema.sql` to a database
/// when it first needs that). The page size is set to today's default of SQLite, since the default
/// may change.
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
/// Fails if SQLite fails. No file is read or written, so that this is not expected.
pub fn nix_database(closure: &Closure) -> Result<Vec<u8>, rusqlite::Error> {
    let mut database = Connection::open_in_memory()?;
    database.execute_batch(SCHEMA)?;
    let transaction = database.transaction()?;
    insert(&transaction, closure)?;
    transaction.commit()?;
    database.execute_batch("vacuum")?;
    let mut bytes = database.serialize("main")?.to_vec();
    pin_header(&mut bytes);
    Ok(bytes)
}

/// Inserts the rows of a closure, in an order that depends on its paths alone. The rows of paths
/// that the database already has are replaced, except for the time of registration.
fn insert(transaction: &Transaction, closure: &Closure) -> Result<(), rusqlite::Error> {
    let mut ids = Vec::with_capacity(closure.infos().len());
    let mut insert = transaction.prepare(
        "insert into ValidPaths (path, hash, registrationTime, narSize) values (?, ?, ?, ?)
         on conflict (path) do update set hash = excluded.hash, narSize = excluded.narSize
         returning id",
    )?;
    for info in closure.infos() {
        let path = Store::default().print(&info.path);
        let hash = info.nar_hash.to_base16();
        let row = params![path, hash, REGISTRATION_TIME, info.nar_size as i64];
        ids.push(insert.query_row(row, |row| row.get::<_, i64>(0))?);
    }
    let id = |node: NodeIdx| ids[node.index()];
    let mut insert =
        transaction.prepare("insert or ignore into Refs (referrer, reference) values (?, ?)")?;
    for node in closure.nodes() {
        for reference in closure.graph().references_and_itself(node) {
            insert.execute([id(node), id(reference)])?;
        }
    }
    Ok(())
}

/// Says why a base image's database can't be used.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// A file could not be read or written.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// SQLite can't read or change the database.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database does not pass SQLite's own check.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The database does not have the schema of Nix 2.
    #[error("its schema has version {0}, and Nix 2 has version {SCHEMA_VERSION}")]
    Schema(String),
}

/// A database with the paths of a base image and of an image on it.
pub struct MergedDatabase {
    /// The bytes of `db.sqlite`.
    pub bytes: Vec<u8>,
    /// The store paths that are valid in the database.
    pub paths: BTreeSet<StorePath>,
}

/// Adds a closure to the database in a directory, with the changes in its journal if there is one.
/// All other rows stay. The directory is a copy that the caller has made: it is changed.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn merged_database(
    directory: &Path,
    closure: &Closure,
) -> Result<MergedDatabase, DatabaseError> {
    let mut database = open(directory)?;
    let transaction = database.transaction()?;
    insert(&transaction, closure)?;
    transaction.commit()?;
    database.execute_batch("vacuum")?;
    let paths = paths_of(&database)?;
    database.close().map_err(|(_, error)| error)?;
    let mut bytes = fs::read(directory.join(DATABASE))?;
    pin_header(&mut bytes);
    Ok(MergedDatabase { bytes, paths })
}

/// Returns the store paths that are valid in the database in a directory. The directory is a copy
/// that the caller has made: it may be changed.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn valid_paths(directory: &Path) -> Result<BTreeSet<StorePath>, DatabaseError> {
    Ok(paths_of(&open(directory)?)?)
}

/// Opens the database in a directory, and checks that it is not damaged.
fn open(directory: &Path) -> Result<Connection, DatabaseError> {
    match fs::read(directory.join(SCHEMA_FILE)) {
        Ok(version) if version.trim_ascii() == SCHEMA_VERSION.as_bytes() => {}
        Ok(version) => {
            let version = version[..version.len().min(20)].trim_ascii();
            return Err(DatabaseError::Schema(version.escape_ascii().to_string()));
        }
        // If the file is missing, Nix takes the database for one of its own version, and so does this program.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let database = Connection::open(directory.join(DATABASE))?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // Triggers and functions in the schema, which is from another author, are not run. Applies the journal to
    // the database and removes it.
    database.execute_batch("pragma trusted_schema = off; pragma journal_mode = delete;")?;
    let check: String = database.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(DatabaseError::Damaged(check));
    }
    Ok(database)
}

fn paths_of(database: &Connection) -> Result<BTreeSet<StorePath>, rusqlite::Error> {
    let mut select = database.prepare("select path from ValidPaths")?;
    let paths = select.query_map([], |row| row.get::<_, String>(0))?;
    // Ignore the paths of other store directories.
    let parsed = paths.filter_map(|path| match path {
        Ok(path) => Store::default().parse(&path).ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    parsed.collect()
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

    /// Returns a copy of a database with all of `infos` and a deriver. With `wal`, the last changes
    /// are still in a journal.
    fn another(infos: &[ValidPathInfo], wal: bool) -> tempfile::TempDir {
        let (made, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = made.path().join(DATABASE);
        let bytes = nix_database(&Closure::new(infos.to_vec()).unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        let database = Connection::open(&file).unwrap();
        if wal {
            let mode = "pragma journal_mode = wal";
            database.query_row(mode, [], |_| Ok(())).unwrap();
        }
        database
            .execute_batch("update ValidPaths set deriver = 'its.drv', registrationTime = 5")
            .unwrap();
        for entry in fs::read_dir(made.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "db.sqlite-shm" {
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        assert_eq!(copy.path().join("db.sqlite-wal").exists(), wal);
        fs::write(copy.path().join(SCHEMA_FILE), "10\n").unwrap();
        copy
    }

    #[test]
    fn databases_are_merged() {
        let infos = infos();
        // The base has the first and the last path. The others are new, and one of them refers to a
        // path of the base.
        let base = [infos[0].clone(), infos[3].clone()];
        let ours = Closure::new(vec![infos[0].clone(), infos[1].clone()]).unwrap();
        let mut all = Vec::new();
        for wal in [false, true] {
            let directory = another(&base, wal);
            let merged = merged_database(directory.path(), &ours).unwrap();
            let names: Vec<_> = merged.paths.iter().map(|path| path.name().to_string()).collect();
            assert_eq!(names, ["a", "b", "elsewhere"]);
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &merged.bytes).unwrap();
            let database = Connection::open(file.path()).unwrap();
            let text =
                |query: &str| database.query_row(query, [], |row| row.get::<_, String>(0)).unwrap();
            assert_eq!(text("pragma integrity_check"), "ok");
            assert_eq!(text("pragma journal_mode"), "delete");
            let rows = "select group_concat(substr(path, 45) || ' ' || ifnull(deriver, 'none') || ' ' || registrationTime)
                 from (select * from ValidPaths order by path)";
            assert_eq!(text(rows), "a its.drv 5,b none 1,elsewhere its.drv 5");
            let references = "select group_concat(substr(p.path, 45) || '>' || substr(q.path, 45))
                 from Refs join ValidPaths p on p.id = referrer join ValidPaths q on q.id = reference";
            assert_eq!(text(references), "a>a,b>a");
            all.push(merged.bytes);
        }
        let again = merged_database(another(&base, false).path(), &ours).unwrap();
        assert!(again.bytes == all[0], "the same bytes every time");
    }

    /// Checks that a trigger of a base image's database does not run.
    #[test]
    fn triggers_of_others_are_not_run() {
        let base = [infos()[3].clone()];
        let directory = another(&base, false);
        let database = Connection::open(directory.path().join(DATABASE)).unwrap();
        // This one would never end.
        let endless = "create trigger endless after insert on ValidPaths begin
             delete from Refs where referrer in
               (with recursive n(i) as (select 1 union all select i + 1 from n) select i from n);
             end";
        database.execute_batch(endless).unwrap();
        database.close().unwrap();
        let merged = merged_database(directory.path(), &Closure::new(infos()).unwrap()).unwrap();
        assert_eq!(merged.paths.len(), 4);
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let ours = Closure::new(infos()).unwrap();
        let refused = |spoil: &dyn Fn(&Path)| {
            let directory = another(&infos(), false);
            spoil(directory.path());
            assert!(valid_paths(directory.path()).is_err());
            merged_database(directory.path(), &ours).err().unwrap().to_string()
        };
        let write = |name: &'static str, bytes: &'static [u8]| {
            refused(&move |directory| fs::write(directory.join(name), bytes).unwrap())
        };
        assert_eq!(
            write(SCHEMA_FILE, b"7\n"),
            "its schema has version 7, and Nix 2 has version 10"
        );
        assert_eq!(write(DATABASE, &[b'x'; 4096]), "file is not a database");
        assert!(write(DATABASE, b"").contains("no such table"));
        let damaged = refused(&|directory| {
            let file = directory.join(DATABASE);
            let mut bytes = fs::read(&file).unwrap();
            bytes[4096..8192].fill(7);
            fs::write(file, bytes).unwrap();
        });
        assert!(damaged.contains("damaged") || damaged.contains("malformed"), "{damaged}");
    }

    proptest! {
        #[test]
        fn order_does_not_matter(infos in Just(infos()).prop_shuffle()) {
            prop_assert_eq!(nix_database(&closure(&infos)).unwrap(), nix_database(&closure(&super::tests::infos())).unwrap());
        }
    }
}
