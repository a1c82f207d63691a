//! The inputs that mutations begin with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use helix_adapter_models::fuzzing::examples;
use helix_objects::{Durability, Family, MemoryStore, ObjectStore, RecordStore, hash};
use helix_protocol::{FileMode, SnapshotId, Timestamp, WireFormat};
use helix_versions::{
    BranchName, Caller, CreateOptions, Existing, FileEdit, FilesRequest, Repository, ScanPolicy, Signature, StatCache,
    WorkspaceName, entry_at,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(name)
}

/// The inputs of a target, in the order of their names.
pub fn read(name: &str) -> Vec<Vec<u8>> {
    let folder = folder(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the corpus can be listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("the corpus can be read")).collect()
}

/// What is encoded today, by the name of its corpus.
#[derive(Default)]
pub struct Examples(Vec<(&'static str, Vec<u8>)>);

impl Examples {
    /// All of them.
    pub fn of_today() -> Self {
        let mut examples = Self::default();
        examples.add_models();
        examples.add_agents();
        examples.add_what_is_read();
        examples.add_stores();
        examples.add_settings();
        examples
    }

    /// Those of a target.
    pub fn of(&self, name: &str) -> impl Iterator<Item = Vec<u8>> {
        self.0.iter().filter(move |(own, _)| *own == name).map(|(_, input)| input.clone())
    }

    /// Writes all of them into the corpus. What is there stays.
    pub fn keep(&self) {
        for (name, input) in &self.0 {
            std::fs::create_dir_all(folder(name)).expect("the corpus is writable");
            let path = folder(name).join(&hash(input).to_string()[..12]);
            std::fs::write(path, input).expect("the corpus is writable");
        }
    }

    fn add(&mut self, name: &'static str, inputs: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        self.0.extend(inputs.into_iter().map(|input| (name, input.as_ref().to_owned())));
    }

    /// Answers and requests of every format of models.
    fn add_models(&mut self) {
        for (name, wire) in [
            ("chat", WireFormat::OpenaiChat),
            ("responses", WireFormat::OpenaiResponses),
            ("anthropic", WireFormat::Anthropic),
            ("gemini", WireFormat::Gemini),
            ("ollama", WireFormat::Ollama),
        ] {
            let [stream, ..] = &examples(wire)[..] else { panic!("an answer in pieces comes first") };
            self.add(if wire == WireFormat::Ollama { "ndjson" } else { "sse" }, [stream]);
            self.add(name, examples(wire));
        }
        self.add_what_services_say();
        self.add("sse", [": note\r\nevent: a\r\ndata: 1\r\ndata: 2\r\n\r\nid: 3\nretry: 4\ndata\n\n\u{feff}data: last"]);
        self.add("ndjson", ["{\"a\": 1}\r\n\n  \n{\"b\": \"\u{e4}\"}"]);
    }

    /// What services say beside answers. The first byte of a refusal is its status, that of what passes its format.
    fn add_what_services_say(&mut self) {
        self.add(
            "refusal",
            [
                "\u{1}{\"error\":{\"message\":\"Incorrect API key: sk-a/b, sk-a\\/b.\",\"type\":\"invalid_request_error\",\"code\":\"invalid_api_key\"}}",
                "\u{0}{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"prompt is too long: 9 tokens > 8 maximum\"}}",
                "\u{9}[{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"3.5s\"}]}}]",
                "\u{2}{\"error\":{\"message\":\"Insufficient credits\",\"code\":402,\"metadata\":{\"raw\":\"sk-a/b\"}}}",
                "\u{c}{\"error\":\"model is loading\"}",
                "\u{d}<html><body>504 Gateway Time-out sk-a/b</body></html>",
            ],
        );
        self.add(
            "passing",
            [
                "\u{0}data: {\"choices\":[{\"delta\":{\"content\":\"sk-a/b\"}}]}\n\nevent: error\r\ndata: {\"error\":{\"message\":\"sk-a/b\"}}\r\n\r\n: sk-a",
                "\u{2}event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"sk-a\\/b\"}}\n\n",
                "\u{4}{\"message\":{\"content\":\"sk-a/b\"},\"done\":false}\n{\"error\":\"no sk-a/b\"}\nsk-a/",
            ],
        );
        for (first, wire) in (0_u8..).zip([
            WireFormat::OpenaiChat,
            WireFormat::OpenaiResponses,
            WireFormat::Anthropic,
            WireFormat::Gemini,
            WireFormat::Ollama,
        ]) {
            let answers = examples(wire).into_iter().take(2);
            self.add("passing", answers.map(|answer| [&[first], answer.as_bytes()].concat()));
        }
        self.add(
            "login",
            [
                r#"{"device_code":"d","user_code":"AB-CD","verification_uri":"https://a/b","verification_uri_complete":"https://a/b?c","expires_in":900,"interval":5}"#,
                r#"{"access_token":"t","refresh_token":"r","token_type":"bearer","expires_in":3600,"scope":"read:user"}"#,
                r#"{"error":"slow_down","error_description":"too fast","interval":10}"#,
                r#"{"token":"tid=1;exp=2","expires_at":1900000000,"refresh_in":1500,"endpoints":{"api":"https://api.example.com"}}"#,
                r#"{"message":"no access for sk-a/b","error_details":{"message":"sk-a/b has no licence"}}"#,
            ],
        );
        self.add(
            "model-list",
            [
                r#"{"object":"list","data":[{"id":"gpt","object":"model","created":1,"owned_by":"o"},{"id":"b/c:free"},{"name":"x"}]}"#,
                r#"{"models":[{"name":"models/gemini","supportedGenerationMethods":["generateContent"],"inputTokenLimit":9}]}"#,
                r#"{"models":[{"name":"qwen:8b","model":"qwen:8b","size":1,"details":{"family":"q"}}],"data":[]}"#,
            ],
        );
    }

    /// What agents print.
    fn add_agents(&mut self) {
        self.add("acp", helix_adapter_external::fuzzing::acp_examples());
        self.add("agent-output", helix_adapter_external::fuzzing::program_examples());
    }

    /// What clients, models and the web send.
    fn add_what_is_read(&mut self) {
        self.add(
            "ollama-prompt",
            [
                r#"{"model":"m","prompt":"hi","system":"be brief","images":["iVBORw0KGgo="],"options":{"num_predict":9},"think":true,"stream":false}"#,
                r#"{"model":"m","prompt":"hi","suffix":"","raw":false,"context":[],"format":{"type":"object"},"keep_alive":"5m"}"#,
                r#"{"model":"m","message":{"role":"assistant","content":"yes","thinking":"hm"},"done":true,"done_reason":"stop","eval_count":2}"#,
            ],
        );
        self.add(
            "patch",
            [
                "*** Begin Patch\n*** Add File: a\n+one\n+\n*** Delete File: b\n*** Update File: c d\n*** Move to: e\n@@ class A\n@@ def f\n x\n\n-y\n+z\n*** End of File\n*** End Patch",
                "apply_patch <<'EOF'\r\n*** Begin Patch\r\n*** Update File: a\r\n@@ -1,2 +1,2 @@\r\n-\u{e4}\r\n+b\r\n@@\r\n c\r\n-d\r\n*** End Patch\r\nEOF\r\n",
            ],
        );
        self.add(
            "search",
            [
                r#"{"query":"q","results":[{"title":"A","url":"https://a","content":"a &lt; <strong>b</strong>","score":1},{"title":"B"}]}"#,
                r#"{"type":"search","web":{"results":[{"title":"B","url":"https://b","description":"<b>b</b> &#x1F600; &nope;"}]}}"#,
            ],
        );
        // The first byte says what it is called.
        let page = "<!doctype html><html><head><title>T</title><style>a{}</style></head><body><h1>One</h1><p>Two &amp; <a href=\"/x\">three</a>\
        <pre>a\n  b</pre><table><tr><th>k</th><td>v</td></tr></table><ul><li>x<ol><li>y</ol></ul><script>1<2</script></body></html>";
        self.add("page", [format!("\0{page}"), format!("\u{4}{page}"), "\u{3}text\n".to_owned()]);
        self.add("page", [[b"\x01<html><p>\xe4\xf6".as_slice(), b"\x02<\0p\0>\0\xe4\0", b"\x05%PDF-1.7"].concat()]);
        self.add(
            "body",
            [
                r#"{"model":"m","n":1,"messages":[{"role":"user","content":"\u00e9\ud83d\ude00"}],"stream":true,"metadata":{"a":1,"A":2}}"#,
                r#"{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"maxOutputTokens":9,"candidateCount":1},"a":[[],{},"",1.5,-2,null]}"#,
                r#"{"model":"m","Model":"n"}"#,
            ],
        );
        self.add(
            "event-array",
            [
                "\u{1}: keep-alive\n\ndata: {\"a\":\"\u{e4}\"}\r\n\r\nevent: x\ndata: {\"b\":\ndata: 2}\n\ndata:{\"c\":3}",
                "\u{2} {\"error\":{\"code\":404}}",
                "\u{2}\n[{\"a\":1}]",
            ],
        );
    }

    /// Real encodings: of a small repository, a group, a mark and some lines.
    fn add_stores(&mut self) {
        let store = Arc::new(MemoryStore::new());
        let who = Signature {
            name: "Ada".into(),
            email: "ada@localhost".into(),
            time: Timestamp(1_700_000_000_000_000),
            offset_minutes: 60,
        };
        let options = CreateOptions {
            branch: "main".parse().expect("a name"),
            root: "/somewhere".into(),
            durability: Durability::NoSync,
            who: who.clone(),
        };
        let repository = Repository::create(store.clone(), options).expect("an empty store");
        let caller = Caller { workspace: WorkspaceName::main(), who, durability: None, committer: None };
        let mut head: Option<SnapshotId> = None;
        for (version, path) in ["a.txt", "b/c.txt", "b/d e.txt"].into_iter().enumerate() {
            let edit = FileEdit { path: path.into(), content: Some((FileMode::Regular, format!("version {version}\n").into())) };
            let request = FilesRequest {
                caller: caller.clone(),
                expect: head,
                edits: vec![edit],
                message: format!("add {path}\n\nwith a body"),
                author: None,
                metadata: [("score".to_owned(), "0.5".to_owned())].into(),
                allow_empty: false,
            };
            head = Some(repository.commit_files(&request).expect("a commit").snapshot);
        }
        let head = head.expect("three commits");
        let name: BranchName = "side".parse().expect("a name");
        repository.create_branch(&caller, &name, head, Existing::Refuse).expect("a branch");
        let tree = repository.tree(head).expect("it is there");
        let below = entry_at(&*store, tree, b"b").expect("it is a tree").expect("it is there").id;
        self.add("tree", [tree, below].map(|id| store.read(id).expect("it is there")));
        self.add("snapshot", [store.read(head.0).expect("it is there")]);
        for family in Family::ALL {
            let records = store.records(family, b"", None, 100).expect("they are in memory");
            self.add("records", records.into_iter().map(|(_, value)| value));
        }
        self.add(
            "ignore-rules",
            ["*.o\n!keep.o\n/target/\n", "a/**/b\n\\#x\n \\ \n[a-c]?.[!x]\n", "**/logs/**\n!**/logs/\n#comment\r\n"],
        );
        self.add("stat-cache", [stat_cache_example(&*store)]);
        self.add("git", git_examples());
        self.add("pack", helix_rocks::fuzzing::pack_examples());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rocks = helix_rocks::RocksStore::open(folder.path()).expect("an empty folder");
        rocks.close().expect("it is open");
        let mark = std::fs::read(folder.path().join("mark")).expect("the store keeps its mark");
        self.add("mark", [&mark[..32]]);
        self.add(
            "protocol",
            [
                "{\"helios\":1,\"release\":\"0.1.0\"}\n",
                "{\"op\":\"run\",\"id\":1,\"argv\":[\"commit\",\"-m\",{\"base64\":\"/w==\"}],\"cwd\":\"/tmp\",\"env\":{\"HOME\":\"/\"},\"columns\":80}\n",
                "{\"op\":\"commit_files\",\"id\":\"x\",\"edits\":[{\"path\":\"a\",\"text\":\"b\"}]}\n{\"op\":\"log\"}\n",
            ],
        );
        self.add(
            "configuration",
            [
                "workers: { local: 2, slots: 3 }\nllm:\n  providers:\n    mine: { base_url: http://127.0.0.1:1/v1, key_env: K }\n",
                "setup: make\nlockfiles: [Cargo.lock]\ncaches: [target]\nports: 2\n",
            ],
        );
    }

    /// Settings of a repository.
    fn add_settings(&mut self) {
        self.add(
            "settings",
            [
                "performance:\n  l1_cache_size: \"2GB\"\n  batch_size: 1000\n  compression: \"lz4\"\nstorage:\n  pebbledb:\n    write_buffer_size: \"256MB\"\n    max_write_buffer_number: 6\nai_optimizations:\n  snapshot_retention: 1000\n  parallel_hashing: true\n",
                "storage:\n  rocksdb: { compression: zstd, compaction_style: level, block_cache_size: 64MB }\ncleanup:\n  auto_gc_enabled: true\n  snapshot_ttl: 48h\n  max_operations: 0\n",
                "# who\nuser: &who\n  name: \"Ada \\u00e4: #1\"\n  email: >-\n    ada@localhost\ncommit: { durability: group }\nworkspace: { file_cap: 1 GiB, events: false }\n",
                "user.name: Ada\nstorage.pebbledb: { write_buffer_size: 1MB }\nstorage: { rocksdb.block_cache_size: 1MB }\n",
                "user.name=Ada =\nstorage.pebbledb.write_buffer_size=512MB\ncleanup.snapshot_ttl=2 d\ncommit.durability=sync\nworkspace.events=false\n",
            ],
        );
    }
}

/// What is remembered of two files, without the hash before it.
fn stat_cache_example(store: &dyn ObjectStore) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (root, file) = (folder.path().join("root"), folder.path().join("stat"));
    std::fs::create_dir(&root).expect("made");
    for name in ["a", "b"] {
        std::fs::write(root.join(name), name).expect("written");
    }
    let mut cache = StatCache::open(&file).expect("there is none");
    helix_versions::scan(&root, None, store, &mut cache, &ScanPolicy::everything()).expect("a folder");
    cache.save().expect("written");
    std::fs::read(&file).expect("read")[32..].to_owned()
}

/// A tree, a commit, a tag, and a difference behind the bytes it is from.
fn git_examples() -> [Vec<u8>; 4] {
    let entries = [("100644", "a.txt"), ("100755", "b"), ("40000", "c"), ("160000", "d"), ("120000", "e")];
    let id = |place: usize| (place as u8..).take(20);
    let entry =
        |(place, (mode, name)): (usize, &(&str, &str))| format!("{mode} {name}\0").into_bytes().into_iter().chain(id(place));
    let tree = entries.iter().enumerate().flat_map(entry).collect();
    let commit = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent 0123456789abcdef0123456789abcdef01234567\n\
        author Ada Lovelace <ada@localhost> 1700000000 +0100\ncommitter Ada <ada@localhost> 1700000001 -0530\nencoding ISO-8859-1\n\
        gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEz\n -----END PGP SIGNATURE-----\n\na subject\n\nand a body\n";
    let tag = "object 0123456789abcdef0123456789abcdef01234567\ntype commit\ntag v1\ntagger Ada <ada@localhost> 1700000000 +0000\n\n\
        a version\n";
    let difference = [b"\x100123456789abcdef\x10\x0e\x90\x05\x04new \x91\x0b\x05".as_slice()].concat();
    [tree, commit.into(), tag.into(), difference]
}
