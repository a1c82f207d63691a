//! What is refused, with what is said, and that nothing is left behind.

use helix_objects::Family;
use helix_protocol::{Code, Failure};

use super::{Git, caller, import, ordinary, repository};
use crate::git::{ExportRefs, GitMap, export_history, import_history};
use crate::{RefName, Repository, VersionError};

fn refused(repository: &Repository, git: &Git) -> Failure {
    let error = import_history(repository, &caller(), git.path(), &mut |_| {}).unwrap_err();
    assert_eq!(repository.refs("refs/").unwrap(), Vec::new(), "nothing is visible after {error}");
    assert!(GitMap::load(&**repository.store()).unwrap().is_empty());
    error.into()
}

#[test]
fn a_shallow_clone_is_refused_with_what_to_do() {
    let (origin, clone) = (ordinary(), Git::nothing());
    let from = format!("file://{}", origin.path().display());
    origin.run(&["clone", "-q", "--depth", "1", &from, clone.path().to_str().unwrap()]);
    let failure = refused(&repository(), &clone);
    assert_eq!(failure.code, Code::InvalidState);
    assert!(failure.message.contains("shallow"), "{failure:?}");
    assert!(failure.hint.contains("--unshallow"));
}

#[test]
fn ids_by_sha256_are_refused_by_name() {
    for bare in [&["init", "-q"][..], &["init", "-q", "--bare"]] {
        let arguments: Vec<&str> = bare.iter().copied().chain(["--object-format=sha256"]).collect();
        let git = Git::with(&arguments);
        assert!(refused(&repository(), &git).message.contains("SHA-256"));
    }
}

#[test]
fn refs_in_a_reftable_are_refused_by_name() {
    for place in [&["init", "-q"][..], &["init", "-q", "--bare"]] {
        let git = Git::with(place);
        git.run(&["config", "core.repositoryFormatVersion", "1"]);
        // As `git init --ref-format=reftable` leaves it, which not every git here has.
        let folder = if git.path().join(".git").exists() { git.path().join(".git") } else { git.path().to_owned() };
        git.run(&["config", "extensions.refStorage", "reftable"]);
        std::fs::write(folder.join("HEAD"), "ref: refs/heads/.invalid\n").unwrap();
        std::fs::write(folder.join("refs/heads"), "this repository uses the reftable format\n").unwrap_or_default();
        let failure = refused(&repository(), &git);
        assert!(failure.message.contains("reftable") && failure.hint.contains("git refs migrate"), "{failure:?}");
    }
}

#[test]
fn a_folder_without_a_repository_is_refused() {
    let git = Git::nothing();
    std::fs::create_dir(git.path()).unwrap();
    assert_eq!(refused(&repository(), &git).code, Code::NotARepository);
}

#[test]
fn a_missing_or_damaged_object_is_named_and_nothing_is_imported() {
    let id = ordinary().run(&["rev-parse", "main:src/two"]);
    for cut in [Some(0), Some(9), None] {
        let git = ordinary();
        // fast-import leaves few objects loose; make sure that this one is.
        let packs: Vec<_> = std::fs::read_dir(git.path().join("objects/pack")).unwrap().flatten().map(|file| file.path()).collect();
        for pack in packs.iter().filter(|path| path.extension().is_some_and(|extension| extension == "pack")) {
            let bytes = std::fs::read(pack).unwrap();
            std::fs::remove_file(pack).unwrap();
            std::fs::remove_file(pack.with_extension("idx")).unwrap();
            git.run_with(&["unpack-objects", "-q"], &bytes);
        }
        let loose = git.path().join("objects").join(&id[..2]).join(&id[2..]);
        match cut {
            Some(length) => {
                let bytes = std::fs::read(&loose).unwrap();
                std::fs::remove_file(&loose).unwrap();
                std::fs::write(&loose, &bytes[..length]).unwrap();
            }
            None => std::fs::remove_file(&loose).unwrap(),
        }
        let failure = refused(&repository(), &git);
        assert_eq!(failure.code, Code::GitFailed);
        assert!(failure.message.contains(&id), "{failure:?}");
    }
}

#[test]
fn damage_anywhere_in_a_pack_is_found_or_is_of_no_consequence() {
    let git = ordinary();
    git.run(&["repack", "-adfq"]);
    let pack = std::fs::read_dir(git.path().join("objects/pack")).unwrap().flatten().map(|file| file.path());
    let pack = pack.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "pack")).unwrap();
    let sound = repository();
    import(&sound, &git);
    let whole = std::fs::read(&pack).unwrap();
    for place in (12..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x20;
        std::fs::remove_file(&pack).unwrap();
        std::fs::write(&pack, &bytes).unwrap();
        let repository = repository();
        match import_history(&repository, &caller(), git.path(), &mut |_| {}) {
            Ok(_) => assert_eq!(repository.refs("refs/").unwrap(), sound.refs("refs/").unwrap(), "byte {place}"),
            Err(_) => assert_eq!(repository.refs("refs/").unwrap(), Vec::new(), "byte {place}"),
        }
    }
}

#[test]
fn a_half_written_repository_is_refused() {
    let git = ordinary();
    std::fs::remove_file(git.path().join("HEAD")).unwrap();
    refused(&repository(), &git);
    let git = ordinary();
    std::fs::write(git.path().join("refs/heads/main"), "not an id\n").unwrap();
    assert_eq!(refused(&repository(), &git).code, Code::GitFailed);
    let git = ordinary();
    git.run(&["update-ref", "refs/heads/main", "main"]);
    std::fs::write(git.path().join("refs/heads/broken"), "1234567890123456789012345678901234567890\n").unwrap();
    assert!(refused(&repository(), &git).message.contains("1234567890123456789012345678901234567890"));
}

#[test]
fn an_export_into_what_is_no_repository_is_refused() {
    let (repository, git) = (repository(), ordinary());
    import(&repository, &git);
    let somewhere = Git::nothing();
    std::fs::create_dir(somewhere.path()).unwrap();
    std::fs::write(somewhere.path().join("letter.txt"), "dear all").unwrap();
    let error = export_history(&repository, &caller(), somewhere.path(), &ExportRefs::All, &mut |_| {}).unwrap_err();
    assert!(matches!(error, VersionError::Refused { .. }), "{error}");
    assert_eq!(std::fs::read_dir(somewhere.path()).unwrap().count(), 1);
    let name: RefName = "refs/heads/nowhere".parse().unwrap();
    let error = export_history(&repository, &caller(), &git.beside("new"), &ExportRefs::Some(vec![name]), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("refs/heads/nowhere"), "{error}");
}

#[test]
fn a_map_that_is_damaged_or_newer_is_refused() {
    let (repository, git) = (repository(), ordinary());
    import(&repository, &git);
    for (value, expected) in [(vec![2; 33], "format 2"), (vec![1; 5], "damaged"), (Vec::new(), "damaged")] {
        let mut batch = repository.batch();
        batch.record(Family::GitMap, "head".into(), Some(value.into()));
        batch.write(&caller(), "test", "").unwrap();
        let error = import_history(&repository, &caller(), git.path(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
