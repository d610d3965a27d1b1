use proptest::prelude::*;

use super::*;

/// What a client is given, by the words of the standard, from a whole stream: name, data, last id.
fn dispatched(stream: &[u8]) -> Vec<(String, String, String)> {
    let text = String::from_utf8_lossy(stream).into_owned();
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    let (mut name, mut data, mut id, mut last) = (String::new(), String::new(), None::<String>, String::new());
    let mut events = Vec::new();
    // What is behind the last line end is no line.
    let Some((text, _)) = text.rsplit_once('\n') else { return events };
    for line in text.split('\n') {
        if line.is_empty() {
            last = id.clone().unwrap_or(last);
            if !data.is_empty() {
                data.pop();
                let name = if name.is_empty() { "message".to_owned() } else { name.clone() };
                events.push((name, data.clone(), last.clone()));
            }
            (name, data) = (String::new(), String::new());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data = data + value + "\n",
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            _ => {}
        }
    }
    events
}

/// Cuts `stream` where `cuts` say.
fn chunks<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

fn parts(stream: &[u8], cuts: &[usize], max: usize) -> Vec<Part> {
    let mut events = Events::new(max);
    let mut parts = Vec::new();
    for chunk in chunks(stream, cuts) {
        events.push(chunk);
        while let Some(part) = events.pop() {
            parts.push(part);
        }
        assert!(events.held() <= max, "no more is held than is allowed");
    }
    let mut all: Vec<u8> = parts.iter().flat_map(|part| part.raw().to_vec()).collect();
    all.extend_from_slice(&events.rest());
    assert_eq!(all, stream, "no byte is lost or changed");
    parts
}

/// What a client would be given of these parts.
fn told(parts: &[Part]) -> Vec<(String, String, String)> {
    let mut last = String::new();
    let mut told = Vec::new();
    for part in parts {
        let Part::Event(event) = part else { continue };
        last = event.id.clone().unwrap_or(last);
        if let Some(data) = &event.data {
            let name = event.name.clone().unwrap_or_else(|| "message".to_owned());
            told.push((name, String::from_utf8_lossy(data).into_owned(), last.clone()));
        }
    }
    told
}

#[test]
fn events_of_the_sdks() {
    let stream = b"event: endpoint\r\ndata: /messages/?session_id=1\r\n\r\n: ping - 2026\r\n\r\nevent: message\ndata: {\"a\":\ndata: 1}\nid: 7\n\n";
    let parts = parts(stream, &[], 1000);
    assert_eq!(parts.len(), 3);
    assert_eq!(
        told(&parts),
        [
            ("endpoint".to_owned(), "/messages/?session_id=1".to_owned(), String::new()),
            ("message".to_owned(), "{\"a\":\n1}".to_owned(), "7".to_owned())
        ]
    );
    assert_eq!(told(&parts), dispatched(stream));
}

#[test]
fn an_event_that_is_too_long_passes_and_the_next_is_read() {
    let long = format!("data: {}\n\n", "x".repeat(100));
    let stream = format!("data: a\n\n{long}data: b\n\n");
    for cuts in [vec![], (0..stream.len()).collect()] {
        let parts = parts(stream.as_bytes(), &cuts, 50);
        let told = told(&parts);
        assert_eq!(told.iter().map(|event| event.1.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}

#[test]
fn a_late_line_feed_is_not_held_back() {
    let mut events = Events::new(100);
    events.push(b"data: a\r\n\r");
    assert!(matches!(events.pop(), Some(Part::Event(_))));
    events.push(b"\n");
    assert_eq!(events.pop(), Some(Part::Passed(Bytes::from_static(b"\n"))));
    assert_eq!(events.pop(), None);
    events.push(b"\n");
    assert!(matches!(events.pop(), Some(Part::Event(Event { data: None, .. }))));
}

#[test]
fn a_scanner_knows_where_it_may_break_in() {
    let mut scanner = Scanner::new();
    assert!(scanner.between());
    let mut at = |chunk: &str| (scanner.feed(chunk.as_bytes()), scanner.between());
    assert_eq!(at("data: a\n\ndata: b\n"), (9, false));
    assert_eq!(at("\n"), (1, true));
    assert_eq!(at("data: c\r\n\r"), (10, true));
    assert_eq!(at("\nid: 1"), (1, false));
    assert_eq!(at("\n"), (0, false));
    assert_eq!(at("\n: ping"), (1, false));
    assert_eq!(at(" pong\n"), (6, true));
    assert_eq!(at("id: 2\nretry: 1500\nretry: x\n"), (0, false));
    assert_eq!(scanner.last_id(), Some("1"), "an id counts with its event's end");
    assert_eq!(scanner.retry(), Some(1500));
    scanner.feed(b"\n");
    assert_eq!(scanner.last_id(), Some("2"));
    scanner.feed(format!("id: {}\n\n", "x".repeat(MAX_ID)).as_bytes());
    assert_eq!(scanner.last_id().map(str::len), Some(MAX_ID));
    scanner.feed(format!("id: {}\n\n", "x".repeat(MAX_ID + 1)).as_bytes());
    assert_eq!(scanner.last_id(), None, "better none than the one before");
    scanner.feed(b"id: 3\n\nid:\n\n");
    assert_eq!(scanner.last_id(), None);
    assert_eq!(scanner.retry(), Some(1500));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_field() {
    for cuts in [vec![], vec![1], vec![2], vec![3], vec![1, 2, 3, 4]] {
        let stream = b"\xef\xbb\xbfid: 1\ndata: a\n\n";
        assert_eq!(told(&parts(stream, &cuts, 100)), dispatched(stream));
        let mut scanner = Scanner::new();
        for chunk in chunks(stream, &cuts) {
            scanner.feed(chunk);
        }
        assert_eq!((scanner.last_id(), scanner.between()), (Some("1"), true));
    }
    let mut scanner = Scanner::new();
    assert_eq!(scanner.feed(b"\xef\xbb"), 0);
    assert!(!scanner.between());
    assert_eq!(scanner.feed(b"id: 1\n\n"), 7);
    assert_eq!(scanner.last_id(), None);
}

#[test]
fn what_is_written_is_read_again() {
    let written = event(Some("message"), b"a\r\n\nb", Some("7\nevent: x"));
    assert_eq!(&written[..], b"event: message\nid: 7\ndata: a\ndata: \ndata: b\n\n");
    assert_eq!(dispatched(&written), [("message".to_owned(), "a\n\nb".to_owned(), "7".to_owned())]);
    assert_eq!(&event(None, b"", None)[..], b"data: \n\n");
    assert_eq!(&comment("keepalive")[..], b": keepalive\n\n");
    assert_eq!(dispatched(&comment("a\ndata: b\rdata: c")), []);
}

/// Streams of fields, comments and line ends in all their forms.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec!["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\r\r"]).prop_map(|text| text.as_bytes().to_vec()),
        6 => prop::sample::select(vec![
            "data", "data:", "data: ", "data: a", "data:{\"b\":1}", "event: endpoint", "event:", "id: 7", "id", "id:\u{0}", "retry: 10", ": c", ":", "x: y", "datax: 1", " data: 1", "\u{feff}",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..5),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_standards_events(stream in stream(), cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        let parts = parts(&stream, &cuts, 10_000);
        prop_assert_eq!(told(&parts), dispatched(&stream));
    }

    #[test]
    fn a_bound_loses_events_but_no_bytes(stream in stream(), cuts in prop::collection::vec(any::<usize>(), 0..12), max in 0usize..40) {
        let told = told(&parts(&stream, &cuts, max));
        let all = dispatched(&stream);
        // Ids of events that were not read are not known, hence names and data only.
        let mut rest = all.iter();
        for event in &told {
            prop_assert!(rest.any(|other| (&other.0, &other.1) == (&event.0, &event.1)), "{:?} in {:?}", event, all);
        }
    }

    #[test]
    fn breaking_in_where_it_is_allowed_changes_no_event(stream in stream(), cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        // What comes before a byte order mark takes its meaning away, so this begins behind one.
        prop_assume!(!stream.starts_with(&BOM[..1]));
        let mut scanner = Scanner::new();
        let mut broken = Vec::new();
        for chunk in chunks(&stream, &cuts) {
            let boundary = scanner.feed(chunk);
            broken.extend_from_slice(&chunk[..boundary]);
            if boundary > 0 {
                broken.extend_from_slice(&comment("keepalive"));
            }
            broken.extend_from_slice(&chunk[boundary..]);
            if scanner.between() && boundary == chunk.len() {
                broken.extend_from_slice(&comment("again"));
            }
        }
        prop_assert_eq!(dispatched(&broken), dispatched(&stream));
        let last = scanner.last_id().map(str::to_owned);
        let known = dispatched(&[&stream[..], b"\n\ndata: end\n\n"].concat()).pop().map(|event| event.2).filter(|id| !id.is_empty());
        if scanner.between() {
            prop_assert_eq!(last, known);
        }
    }
}
