use super::extended::pax_records;
use super::*;

/// Everything that a scan finds.
#[derive(Default)]
struct Found {
    files: Vec<(Vec<u8>, Place)>,
    directories: Vec<Vec<u8>>,
    faults: Vec<String>,
}

impl Entries for Found {
    fn file(&mut self, name: &[u8], place: Place) {
        self.files.push((name.to_owned(), place));
    }

    fn directory(&mut self, name: &[u8]) {
        self.directories.push(name.to_owned());
    }

    fn other(&mut self, name: &[u8], what: impl Into<String>) {
        self.fault(name, what);
    }

    fn cut(&mut self, name: &[u8], what: String) {
        self.fault(name, what);
    }

    fn fault(&mut self, _: &[u8], what: impl Into<String>) {
        self.faults.push(what.into());
    }

    fn count(&mut self, _: &Path) -> Result<()> {
        Ok(())
    }
}

fn header(kind: u8, name: &str, size: u64) -> [u8; 512] {
    let mut header = ::tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_entry_type(::tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_cksum();
    *header.as_bytes()
}

/// The same bytes from a pipe that returns them in pieces of this length.
fn stream_bytes(bytes: &[u8], piece: usize) -> Found {
    let mut found = Found::default();
    let mut stream = Stream::new(Path::new("x.tar"), Pieces(bytes, piece));
    let mut skips = false;
    while let Some(file) = stream.next(&mut found).unwrap() {
        // Bytes that are not read are skipped.
        skips = !skips;
        let mut buffer = [0; 100];
        let mut read = 0;
        while !skips && let more @ 1.. = stream.read(&mut buffer, &mut found).unwrap() {
            let at = file.place.offset as usize + read;
            assert_eq!(buffer[..more], bytes[at..at + more]);
            read += more;
        }
        assert!(skips || stream.is_cut() || read as u64 == file.place.size);
        if stream.is_cut() {
            break;
        }
    }
    assert_eq!(stream.next(&mut found).unwrap(), None);
    if stream.is_cut() {
        found.files.pop();
    }
    found
}

struct Pieces<'a>(&'a [u8], usize);

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

fn scan_bytes(bytes: &[u8]) -> Found {
    let scanned = by_offset(bytes);
    for piece in [7, 600, usize::MAX] {
        let mut streamed = stream_bytes(bytes, piece);
        assert_eq!((&streamed.files, &streamed.directories), (&scanned.files, &scanned.directories), "{piece}");
        let mut faults = scanned.faults.clone();
        faults.sort();
        streamed.faults.sort();
        assert_eq!(streamed.faults, faults, "{piece}");
    }
    scanned
}

fn by_offset(bytes: &[u8]) -> Found {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let mut found = Found::default();
    scan(Path::new("x.tar"), &file, bytes.len() as u64, &mut found).unwrap();
    found
}

#[test]
fn sizes_beyond_eight_gibibytes_are_read() {
    let size = 20 << 30;
    assert_eq!(
        Header::parse(&header(b'0', "a", size)).unwrap(),
        Header { name: b"a".to_vec(), size, kind: b'0', foreign: None }
    );
}

#[test]
fn links_devices_and_sparse_files_are_faults_and_never_offered() {
    for kind in [b'1', b'2', b'3', b'4', b'6', b'7', b'S', b'V'] {
        let found = scan_bytes(&[header(kind, "blobs/x", 0), [0; 512], [0; 512]].concat());
        assert_eq!((found.files.len(), found.faults.len()), (0, 1), "{}", char::from(kind));
    }
}

#[test]
fn a_size_that_overflows_or_passes_the_end_is_a_problem() {
    for size in [513, u64::MAX >> 1, (u64::MAX >> 1) - 511] {
        let found = scan_bytes(&[header(b'0', "a", size), [0; 512]].concat());
        assert_eq!((found.files.len(), found.faults.len()), (0, 1), "{size}");
    }
}

#[test]
fn a_tar_cut_anywhere_is_a_problem_and_never_a_panic() {
    let whole = [header(b'0', "a", 10), [0; 512], header(b'0', "b", 0), [0; 512], [0; 512]].concat();
    for length in 0..whole.len() {
        let found = scan_bytes(&whole[..length]);
        assert!(!found.faults.is_empty(), "{length}");
    }
    assert!(scan_bytes(&whole).faults.is_empty());
}

#[test]
fn data_that_no_digest_covers_is_a_problem() {
    let whole = [header(b'0', "a", 10), [0; 512], [0; 512], [0; 512]].concat();
    assert!(scan_bytes(&whole).faults.is_empty());
    for hidden in [512 + 10, 1023, 1024 + 512 + 3, whole.len() - 1] {
        let mut forged = whole.clone();
        forged[hidden] = 1;
        assert!(!scan_bytes(&forged).faults.is_empty(), "{hidden}");
    }
    let longer = [whole, vec![0; 9000], vec![1]].concat();
    assert!(!scan_bytes(&longer).faults.is_empty());
}

/// The faults of a tar with these blocks before its end mark.
#[track_caller]
fn problems_of(blocks: &[[u8; 512]]) -> Vec<String> {
    scan_bytes(&[blocks.concat(), vec![0; 1024]].concat()).faults
}

/// A block with `data`.
fn block(data: &[u8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..data.len()].copy_from_slice(data);
    block
}

/// A header with any name, valid or not.
fn named(kind: u8, name: &[u8]) -> [u8; 512] {
    let mut header = header(kind, "x", 0);
    header[..name.len()].copy_from_slice(name);
    summed(header)
}

fn summed(mut header: [u8; 512]) -> [u8; 512] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn a_name_that_ends_in_a_slash_is_a_directory_whatever_its_header_calls_it() {
    for kind in [b'5', b'0', 0] {
        let found = scan_bytes(&[named(kind, b"../up/"), [0; 512], [0; 512]].concat());
        assert_eq!((found.files.len(), found.directories), (0, vec![b"../up/".to_vec()]), "{kind}");
        assert_eq!(found.faults, [""; 0]);
    }
    assert_eq!(scan_bytes(&[named(b'5', b"plain"), [0; 512], [0; 512]].concat()).directories, [b"plain"]);
}

#[test]
fn a_number_or_an_extended_header_that_others_may_read_differently_is_a_problem() {
    for size in [
        &b"+0000000000\0"[..],
        b"-0000000001\0",
        b"0x000000000\0",
        b"00000000008\0",
        b"0000 000000\0",
        b"\xff\xff",
        b"           \0",
        b"\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let mut forged = header(b'0', "a", 0);
        forged[124..124 + size.len()].copy_from_slice(size);
        assert_eq!(problems_of(&[summed(forged)]).len(), 1, "{}", size.escape_ascii());
    }
    for record in [
        &b"9 path=b"[..],
        b"9 path=b\n\0",
        b"+9 path=b\n",
        b" 9 path=b\n",
        b"8 path=b\n",
        b"11 path=b\n",
        b"5 ab\n",
        b"0 path=b\n",
        b"99999999999999999999 path=b\n",
        b"path=b\n",
    ] {
        let pax = header(b'x', "pax", record.len() as u64);
        let problems = problems_of(&[pax, block(record), header(b'0', "a", 0)]);
        assert_eq!(problems, ["its extended header is malformed"], "{}", record.escape_ascii());
    }
    for size in
        [&b"11 size=+0\n"[..], b"11 size=-1\n", b"11 size= 0\n", b"11 size=0x\n", b"30 size=18446744073709551616\n"]
    {
        let pax = header(b'x', "pax", size.len() as u64);
        assert_eq!(problems_of(&[pax, block(size), header(b'0', "a", 0)]).len(), 1, "{}", size.escape_ascii());
    }
    let name = block(b"one\0two");
    let problems = problems_of(&[header(b'L', "long", 8), name, header(b'0', "a", 0)]);
    assert_eq!(problems[0], "its extended header is malformed", "{problems:?}");
}

/// An alias of a blob would be a different file for a loader, under a valid signature.
#[test]
fn what_two_programs_may_call_by_two_names_is_a_problem() {
    let long = |name: &str| [header(b'L', "long", name.len() as u64), block(name.as_bytes())];
    let other = pax(&[("path", "manifest.json")]);
    let two = "it is a second extended header before one entry";
    for (first, second) in [
        (long("blobs/x"), other),
        (other, long("blobs/x")),
        (long("blobs/x"), long("manifest.json")),
        (other, pax(&[("comment", "0123456")])),
        (pax(&[("size", "1000000")]), pax(&[("comment", "0123456")])),
    ] {
        let blocks = [first, second].concat();
        let problems = problems_of(&[&blocks[..], &[header(b'0', "a", 0)]].concat());
        assert!(problems.contains(&two.to_owned()), "{problems:?}");
    }
    let [twice, data] = pax(&[("path", "manifest.json"), ("path", "manifest.jsom")]);
    assert_eq!(problems_of(&[twice, data, header(b'0', "a", 0)]), ["its extended header is malformed"]);
    for dialect in [&b"ustar  \0"[..], &[0; 8][..]] {
        let mut forged = header(b'0', "a", 0);
        forged[257..265].copy_from_slice(dialect);
        forged[345..350].copy_from_slice(b"../up");
        let problems = problems_of(&[summed(forged)]);
        assert!(problems.len() == 1 && problems[0].contains("has a prefix"), "{problems:?}");
    }
}

/// One extended header with these records.
fn pax(records: &[(&str, &str)]) -> [[u8; 512]; 2] {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length = (1..6).map(|digits| digits + rest.len()).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
        format!("{length}{rest}")
    };
    let data: String = records.iter().map(record).collect();
    [header(b'x', "pax", data.len() as u64), block(data.as_bytes())]
}

/// bsdtar uses the real size of a sparse file. It would unpack bytes that no digest covers, or cut a blob short.
#[test]
fn a_field_that_only_other_kinds_of_entries_have_is_a_problem_because_some_programs_read_it() {
    let gnu = b"ustar  \0";
    // Times, offset, long names, the sparse map, whether it continues, the real size, and fields that no program uses.
    for (dialect, at) in [(gnu, 357), (gnu, 369), (gnu, 381), (gnu, 386), (gnu, 482), (gnu, 483), (gnu, 511)]
        .into_iter()
        .chain([(&[0; 8], 369), (&[0; 8], 483)])
        .chain([(b"ustar\x0000", 470), (b"ustar\x0000", 499), (b"ustar\x0000", 505), (b"ustar\x0000", 508)])
    {
        let mut forged = header(b'0', "a", 0);
        forged[257..265].copy_from_slice(dialect);
        assert_eq!(problems_of(&[summed(forged)]), [""; 0]);
        forged[at] = b'1';
        assert_eq!(problems_of(&[summed(forged)]), [FOREIGN_FIELD], "{} {at}", dialect.escape_ascii());
        // Also in an extended header.
        if dialect != &[0; 8] {
            forged[156] = b'x';
            assert_eq!(problems_of(&[summed(forged), header(b'0', "a", 0)]), [FOREIGN_FIELD], "{at}");
        }
    }
    let mut plain = header(b'0', "name", 0);
    plain[257..265].copy_from_slice(b"ustar\x0000");
    plain[345..500].fill(b'p');
    let found = scan_bytes(&[summed(plain), [0; 512], [0; 512]].concat());
    assert_eq!((found.faults.len(), found.files[0].0.len()), (0, 160));
}

/// npm and star write such headers.
#[test]
fn times_behind_a_short_prefix_change_nothing() {
    let mut forged = header(b'0', "a", 0);
    forged[257..265].copy_from_slice(b"ustar\x0000");
    for (at, field) in [(476, &b"14722471223\0"[..]), (488, b"14722471223 "), (508, b"tar\0")] {
        forged[at..at + field.len()].copy_from_slice(field);
        assert_eq!(problems_of(&[summed(forged)]), [""; 0], "{at}");
    }
    forged[475] = b'p';
    assert_eq!(problems_of(&[summed(forged)]), [FOREIGN_FIELD], "now they are read as a part of the name");
}

/// A target of more than a hundred bytes has no other place. Links are reported as links.
#[test]
fn a_link_with_a_long_target_is_not_two_readings() {
    for kind in [b'1', b'2'] {
        let [first, second] = pax(&[("linkpath", &"b".repeat(107))]);
        let kind_alone = problems_of(&[header(kind, "a", 0)]);
        assert_eq!(problems_of(&[first, second, header(kind, "a", 0)]), kind_alone);
    }
}

#[test]
fn a_record_that_some_programs_obey_and_others_do_not_know_is_a_problem() {
    for key in
        ["SCHILY.realsize", "SCHILY.filetype", "SUN.holesdata", "linkpath", "hdrcharset", "GNU.volume.label", "Path"]
    {
        let [first, second] = pax(&[("mtime", "1.5"), (key, "1")]);
        let problems = problems_of(&[first, second, header(b'0', "a", 0)]);
        assert_eq!(problems, [format!("its extended header has {key:?}, which programs read differently")]);
    }
    let harmless = ["atime", "uname", "SCHILY.xattr.user.x", "SCHILY.ino", "LIBARCHIVE.creationtime", "comment"];
    for key in harmless {
        let [first, second] = pax(&[(key, "1")]);
        assert_eq!(problems_of(&[first, second, header(b'0', "a", 0)]), [""; 0], "{key}");
    }
}

/// busybox does not know pax headers and would unpack the bytes of a blob as entries of their own.
#[test]
fn an_extended_header_that_contradicts_a_header_with_room_for_it_is_a_problem() {
    let [first, second] = pax(&[("size", "512")]);
    let nested = header(b'0', "manifest.json", 0);
    let problems = problems_of(&[first, second, header(b'0', "a", 0), nested]);
    assert_eq!(
        problems,
        ["its extended header gives another size than its header, and some programs read only the header"]
    );
    assert_eq!(problems_of(&[first, second, header(b'0', "a", 512), nested]), [""; 0]);
    let name = "its extended header gives another name than its header, and some programs read only the header";
    let long = [header(b'L', "long", 2), block(b"b")];
    for [first, second] in [pax(&[("path", "b")]), pax(&[("path", "")]), pax(&[("path", &"b".repeat(99))]), long] {
        assert_eq!(problems_of(&[first, second, header(b'0', "a", 0)]), [name]);
    }
    let (long, foreign) = ("b".repeat(100), "blob-é");
    for path in ["a", &long, foreign] {
        let [first, second] = pax(&[("path", path)]);
        assert_eq!(problems_of(&[first, second, header(b'0', "a", 0)]), [""; 0], "{path}");
    }
    let [first, second] = pax(&[("path", "a\0b")]);
    assert!(
        problems_of(&[first, second, header(b'0', "a", 0)]).contains(&"its extended header is malformed".to_owned())
    );
}

/// Every dialect that this system's tar can write: none may be rejected for what it always contains.
#[test]
fn tars_of_gnu_tar_are_read_without_a_fault_in_every_dialect() {
    let directory = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(80), "f".repeat(90));
    std::fs::create_dir(directory.path().join("d".repeat(80))).unwrap();
    for (name, bytes) in [("short", "1"), (&*long, "22"), ("é", "333"), ("empty", "")] {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    for (format, names) in [
        ("v7", &["short", "empty"][..]),
        ("ustar", &["short", "empty", &long]),
        ("gnu", &["short", "empty", &long, "é"]),
        ("oldgnu", &["short", "empty", &long, "é"]),
        ("pax", &["short", "empty", &long, "é"]),
    ] {
        let made = std::process::Command::new("tar")
            .current_dir(&directory)
            .args(["--create", "--file=-", "--format", format])
            .args(names)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let found = scan_bytes(&made.stdout);
        assert_eq!((found.faults, found.files.len()), (Vec::new(), names.len()), "{format}");
    }
}

#[test]
fn a_header_of_no_known_dialect_is_a_problem_because_programs_differ_in_what_they_do_with_it() {
    let long = header(b'L', "long", 2);
    for dialect in [&b"ustar( \0"[..], b"ustar\0\0\0", b"ustar\x0001", b"USTAR  \0", b"\0\0\0\0\0\0\0\0"] {
        let mut forged = long;
        forged[257..265].copy_from_slice(dialect);
        let problems = problems_of(&[summed(forged), block(b"b"), header(b'0', "a", 0)]);
        assert!(
            problems.len() == 1 && problems[0].contains("an unknown dialect"),
            "{}: {problems:?}",
            dialect.escape_ascii()
        );
    }
    let mut oldest = header(b'0', "a", 0);
    oldest[257..265].fill(0);
    assert_eq!(problems_of(&[summed(oldest)]), [""; 0]);
}

#[test]
fn sparse_members_of_every_kind_are_faults_and_never_offered() {
    for record in
        ["22 GNU.sparse.major=1\n", "25 GNU.sparse.size=1000000\n", "21 GNU.sparse.map=0,1\n", "21 GNU.sparse.name=x\n"]
    {
        let record = record.split_once(' ').map(|(_, rest)| format!("{} {rest}", rest.len() + 3)).unwrap();
        let pax = header(b'x', "pax", record.len() as u64);
        let tar = [pax, block(record.as_bytes()), header(b'0', "blobs/x", 0), [0; 512], [0; 512]].concat();
        let found = scan_bytes(&tar);
        assert_eq!((found.files.len(), found.faults[0].as_str()), (0, "it is a sparse file"), "{record}");
    }
}

#[test]
fn what_follows_the_end_mark_is_not_read_without_end() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&header(b'0', "a", 0), 0).unwrap();
    // A hole, which takes no space and would take hours to read completely.
    file.set_len(1 << 42).unwrap();
    let mut found = Found::default();
    scan(Path::new("x.tar"), &file, 1 << 42, &mut found).unwrap();
    assert!(found.faults[0].contains("after its end mark"), "{:?}", found.faults);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes: Vec<u8>, kind: u8, fix: bool) {
        bytes.resize(2048, 0);
        bytes[156] = kind;
        if fix {
            let sum: u64 = bytes[..512].iter().enumerate()
                .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) }).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        scan_bytes(&bytes);
    }

    /// Entries of every kind, cut off or with a changed byte anywhere: both readers agree, as [`scan_bytes`] demands.
    #[test]
    fn out_of_a_pipe_it_is_the_same_tar(
        entries in proptest::collection::vec((0_usize..9, 0_u64..1500), 0..5), cut: u16, other: u16, how in 0..4,
    ) {
        let mut bytes = Vec::new();
        for (kind, size) in entries {
            let kind = b"0057L1xgS"[kind];
            bytes.extend(header(kind, "name", size));
            bytes.extend(vec![b'x'; size as usize]);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend([0; 1024]);
        if how & 1 == 1 {
            bytes.truncate(cut as usize % bytes.len());
        }
        if how & 2 == 2 && !bytes.is_empty() {
            let at = other as usize % bytes.len();
            bytes[at] ^= 1;
        }
        scan_bytes(&bytes);
    }

    #[test]
    fn no_pax_record_makes_it_panic(data: Vec<u8>) {
        pax_records(&data);
    }

    #[test]
    fn a_pax_record_is_read_as_it_was_written(key in "[^=\n]{1,20}", value in "[^\n]{0,40}") {
        let rest = format!(" {key}={value}\n");
        let length = (1..6).map(|digits| digits + rest.len()).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
        let record = format!("{length}{rest}");
        proptest::prop_assert_eq!(pax_records(record.as_bytes()), Some(vec![(key.as_bytes(), value.as_bytes())]));
        proptest::prop_assert_eq!(pax_records(&record.as_bytes()[..length - 1]), None);
    }
}
