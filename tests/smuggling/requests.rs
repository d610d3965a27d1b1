//! HTTP/1 requests that two readers have understood differently.

use crate::table::Fate::{Broken, Last, Passes, Refused, Unfinished};
use crate::table::{Fate, Meaning, Row, SMUGGLED, assert_fates, means};

fn row(name: impl Into<String>, sent: impl AsRef<[u8]>, fate: Fate) -> Row {
    Row { name: name.into(), sent: sent.as_ref().to_vec(), fate }
}

/// A row for each of these lines in a good head, with this body.
fn lines(lines: &[&str], body: &str, fate: &Fate) -> Vec<Row> {
    lines.iter().map(|line| row(format!("{line:?}"), posted(line, body), fate.clone())).collect()
}

fn posted(lines: &str, body: &str) -> String {
    format!("POST /ROW HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")
}

fn chunked(body: &str) -> String {
    posted("Transfer-Encoding: chunked", body)
}

fn got(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{lines}\r\n")
}

/// A body that is five bytes by its length, and is over at once by its chunks.
const EITHER: &str = "0\r\n\r\n";

fn hello() -> Meaning {
    means("POST /ROW HTTP/1.1", "hello")
}

fn empty_get() -> Meaning {
    means("GET /ROW HTTP/1.1", "")
}

#[tokio::test]
async fn a_length_and_chunks_are_never_both_believed() {
    let mut rows = lines(
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "content-length: 5\r\ntransfer-encoding: CHUNKED",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nX: y\r\nTransfer-Encoding: identity",
            "Content-Length: 5\r\nTransfer-Encoding: xchunked",
            "Content-Length: 5\r\nTransfer-Encoding : chunked",
            "Content-Length: 5\r\nTransfer-Encoding\t: chunked",
            "Content-Length: 5\r\n Transfer-Encoding: chunked",
            "Content-Length: 5\r\n\tTransfer-Encoding: chunked",
            "Content-Length: 5\r\nX: y\r\n Transfer-Encoding: chunked",
            "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked",
            "Content-Length: 5\r\nTransfer-Encoding: \r\n\tchunked",
            "Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked",
            "Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nTransfer-Encoding\u{b}: chunked",
            "Content-Length: 5\r\n\u{b}Transfer-Encoding: chunked",
            "Content-Length: 5\r\n\u{feff}Transfer-Encoding: chunked",
            "Content-Length: 5\r\nTransfer\0-Encoding: chunked",
            "Content-Length: 5\r\n\"Transfer-Encoding\": chunked",
            "Content-Length: 5\r\nX:[\r\nTransfer-Encoding: chunked]",
            "Content-Length: 5\r\nTransfer-\u{212a}ncoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length : 5",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6",
            "Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            "Connection: Content-Length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        ],
        EITHER,
        &Refused(400),
    );
    // Each way round, as in the attack: who believes the other framing sees a second request.
    let tail = format!("0\r\n\r\n{SMUGGLED}");
    rows.push(row(
        "CL.TE",
        posted(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked", tail.len()), &tail),
        Refused(400),
    ));
    let chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    rows.push(row("TE.CL", posted("Content-Length: 4\r\nTransfer-Encoding: chunked", &chunk), Refused(400)));
    rows.push(row(
        "TE.0",
        format!(
            "OPTIONS /ROW HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n{chunk}"
        ),
        Passes(means("OPTIONS /ROW HTTP/1.1", SMUGGLED)),
    ));
    rows.push(row(
        "0.CL",
        format!("GET /ROW HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        Passes(means("GET /ROW HTTP/1.1", SMUGGLED)),
    ));
    // Other names are other headers, whatever a gateway interface behind may make of them.
    for line in [
        "X-Transfer-Encoding: chunked",
        "Transfer-Encodin: chunked",
        "TransferEncoding: chunked",
        "Transfer.Encoding: chunked",
    ] {
        rows.push(row(
            line,
            posted(&format!("Content-Length: 5\r\n{line}"), EITHER),
            Passes(means("POST /ROW HTTP/1.1", EITHER).with("content-length", "5")),
        ));
    }
    for (line, name) in
        [("Transfer_Encoding: chunked", "transfer_encoding"), ("Transfer-Encoding_: chunked", "transfer-encoding_")]
    {
        rows.push(row(
            line,
            posted(&format!("Content-Length: 5\r\n{line}"), EITHER),
            Passes(means("POST /ROW HTTP/1.1", EITHER).without(name)),
        ));
    }
    rows.push(row(
        "Content_Length",
        posted("Content-Length: 5\r\nContent_Length: 40", "hello"),
        Passes(hello().without("content_length")),
    ));
    assert_fates(rows).await;
}

#[tokio::test]
async fn transfer_encoding_is_chunked_alone_or_nothing() {
    let values: &[&str] = &[
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity",
        "identity, chunked",
        "chunked, chunked",
        "chunked,chunked",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "deflate, chunked",
        "compress",
        ",chunked",
        "chunked,",
        "chunked ,",
        ", , chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "\u{c}chunked",
        "\0chunked",
        "chunked\0",
        "\u{a0}chunked",
        "\u{2003}chunked",
        "\u{1}chunked",
        "\u{7f}chunked",
        "\"chunked\"",
        "'chunked'",
        "\"chunked",
        "chunked;",
        "chunked;q=1",
        "chunked; foo=bar",
        "chunked=1",
        "chunked/1",
        "(chunked)",
        "[chunked]",
        "ch unked",
        "chun\tked",
        "chunked chunked",
        "chunked identity",
        "chunked\\",
        "\\chunked",
        "chunke",
        "c\u{212b}hunked",
        "\u{fb00}chunked",
        "true",
        "null",
        "0",
        "*",
        "trailers",
        "chunked#",
        "chunked?",
        "chunked:",
        ": chunked",
        "chunked\rX",
        "",
        ",",
        "chunked\r\n , identity",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\ntransfer-encoding:",
        "\r\nTransfer-Encoding: chunked",
        "chunked\r\nX: y\r\nTransfer-Encoding: cow",
        "cow\r\nTransfer-Encoding: chunked",
    ];
    let refused: Vec<String> = values.iter().map(|value| format!("Transfer-Encoding: {value}")).collect();
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    let mut rows = lines(&refused, EITHER, &Refused(400));
    let good = [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:  chunked \t",
        "tRANSFER-eNCODING: cHUNKED",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    ];
    rows.extend(lines(&good, "5\r\nhello\r\n0\r\n\r\n", &Passes(hello())));
    for (name, lines) in [
        ("1.0", "Transfer-Encoding: chunked"),
        ("1.0 kept alive", "Connection: keep-alive\r\nTransfer-Encoding: chunked"),
        ("1.0 with a length", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.0 identity", "Transfer-Encoding: identity"),
    ] {
        rows.push(row(name, format!("POST /ROW HTTP/1.0\r\nHost: a\r\n{lines}\r\n\r\n{EITHER}"), Refused(400)));
    }
    assert_fates(rows).await;
}

#[tokio::test]
async fn a_length_is_one_number() {
    let values: &[&str] = &[
        "5, 5",
        "5,5",
        "5,6",
        "5, 6",
        "5,",
        ",5",
        "5 5",
        "+5",
        "-5",
        "-1",
        "-0",
        "0x5",
        "0X5",
        "5h",
        "5.",
        "5.0",
        "5e0",
        "0b101",
        "5_0",
        "1'0",
        "5;",
        "5;x",
        "\"5\"",
        "'5'",
        "(5)",
        "five",
        "",
        ",",
        "\u{b}5",
        "5\u{b}",
        "5\u{c}x",
        "\x005",
        "5\0",
        "\u{a0}5",
        "\u{665}",
        "\u{ff15}",
        "\u{b2}",
        "5\r",
        "5\n",
        "5\r\n 0",
        "\r\n 5",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999999999999999",
        "18446744073709551615",
        "-18446744073709551611",
        "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6",
        "0\r\nContent-Length: 5",
        "5\r\ncontent-length: 0",
        "5\r\nX: y\r\nCONTENT-LENGTH: 0",
        "5\r\nContent-Length:",
    ];
    let refused: Vec<String> = values.iter().map(|value| format!("Content-Length: {value}")).collect();
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    let mut rows = lines(&refused, "hello", &Refused(400));
    rows.extend(lines(
        &[
            "Content-Length : 5",
            "Content-Length\t: 5",
            " Content-Length: 5",
            "\tContent-Length: 5",
            "Content-Length",
            "Content Length: 5",
            "Content-Length\0: 5",
        ],
        "hello",
        &Refused(400),
    ));
    // Numbers that do not fit into 32 or 63 bits are lengths like others, and longer than a body may be.
    rows.extend(lines(
        &[
            "Content-Length: 4294967301",
            "Content-Length: 9223372036854775808",
            "Content-Length: 9223372036854775813",
            "Content-Length: 18446744073709551613",
        ],
        "hello",
        &Refused(413),
    ));
    // Leading zeros are digits (RFC 9110 §8.6); they do not make it octal.
    for (value, body) in [
        ("5", "hello"),
        ("05", "hello"),
        ("0000000000000000000000000000005", "hello"),
        ("010", "hello, you"),
        ("0", ""),
        ("00", ""),
    ] {
        rows.push(row(
            value,
            posted(&format!("Content-Length: {value}"), body),
            Passes(means("POST /ROW HTTP/1.1", body)),
        ));
    }
    rows.extend(lines(
        &[
            "Content-Length:5",
            "Content-Length:\t5",
            "Content-Length:   5 \t",
            "cONTENT-lENGTH: 5",
            "X-Content-Length: 40\r\nContent-Length: 5",
        ],
        "hello",
        &Passes(hello()),
    ));
    assert_fates(rows).await;
}

#[tokio::test]
async fn a_chunks_size_is_hexadecimal_and_its_data_ends_where_that_says() {
    let broken: &[&str] = &[
        // The size.
        "G\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "0X5\r\nhello\r\n",
        "x5\r\nhello\r\n",
        "\\x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "-0\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "\t5\r\nhello\r\n",
        "5 5\r\nhello\r\n",
        "5_\r\nhello\r\n",
        "5h\r\nhello\r\n",
        "5.\r\nhello\r\n",
        "5,\r\nhello\r\n",
        "\u{b}5\r\nhello\r\n",
        "5\u{b}\r\nhello\r\n",
        "5\0\r\nhello\r\n",
        "\x005\r\nhello\r\n",
        "\u{ff15}\r\nhello\r\n",
        "\r\nhello\r\n",
        ";\r\nhello\r\n",
        ";x\r\nhello\r\n",
        "\"5\"\r\nhello\r\n",
        "10000000000000005\r\nhello\r\n",
        "fffffffffffffffff\r\nhello\r\n",
        "100000000000000000000000000000005\r\nhello\r\n",
        // The line's end.
        "5\nhello\r\n",
        "5\rhello\r\n",
        "5\r\rhello\r\n",
        "5\r\r\nhello\r\n",
        "5hello\r\n",
        "5;\nhello\r\n",
        "5;x\nhello\r\n",
        "5;x\rhello\r\n",
        "5;x\ry\r\nhello\r\n",
        "5;\r\r\nhello\r\n",
        "5;x=\"\n\"\r\nhello\r\n",
        "5;x=\"\r\n\"\r\nhello\r\n",
        "5 \nhello\r\n",
        // The data's end.
        "5\r\nhello",
        "5\r\nhello\n",
        "5\r\nhello\r",
        "5\r\nhelloXX",
        "5\r\nhello\r\r\n",
        "5\r\nhello\n\r\n",
        "5\r\nhello \r\n",
        "5\r\nhello!\r\n",
        "5\r\nhell\r\n",
        "5\r\nhello\r\n\r\n",
        "6\r\nhello\r\n",
    ];
    let mut rows: Vec<Row> =
        broken.iter().map(|chunk| row(format!("{chunk:?}"), chunked(&format!("{chunk}0\r\n\r\n")), Broken)).collect();
    let ends = [
        "0\n\r\n",
        "0\r\n\n",
        "0\n\n",
        "0\r\r\n\r\n",
        "0\r\n\r\r\n",
        "0;x\n\r\n",
        "0;\n\r\n",
        "0\r\rX",
        "00x\r\n\r\n",
        "-0\r\n\r\n",
        "+0\r\n\r\n",
        "0x0\r\n\r\n",
        " 0\r\n\r\n",
        "0\r\n\rX\r\n\r\n",
    ];
    rows.extend(ends.map(|end| row(format!("end {end:?}"), chunked(&format!("5\r\nhello\r\n{end}")), Broken)));
    // 32 or 63 bits of these are 5.
    rows.push(row("a size past 32 bits", chunked("100000005\r\nhello\r\n0\r\n\r\n"), Unfinished));
    rows.push(row("a size past 63 bits", chunked("8000000000000005\r\nhello\r\n0\r\n\r\n"), Unfinished));
    for good in [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n0\r\n\r\n",
        "000000005\r\nhello\r\n000\r\n\r\n",
        "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        "5;x\r\nhello\r\n0\r\n\r\n",
        "5;x=y\r\nhello\r\n0;z\r\n\r\n",
        "5;x=\"y;\\\"\"\r\nhello\r\n0\r\n\r\n",
        "5 ;x\r\nhello\r\n0\r\n\r\n",
        "5\t; x=1\r\nhello\r\n0\r\n\r\n",
    ] {
        rows.push(row(format!("{good:?}"), chunked(good), Passes(hello())));
    }
    for (name, text) in [("an upper case size", "A"), ("a lower case size", "a")] {
        rows.push(row(
            name,
            chunked(&format!("{text}\r\nhello, you\r\n0\r\n\r\n")),
            Passes(means("POST /ROW HTTP/1.1", "hello, you")),
        ));
    }
    // A quote hides no line end (RFC 9112 §7.1.1).
    rows.push(row("a quote that is not closed", chunked("5;x=\"\r\nhello\r\n0;\"\r\n\r\n"), Passes(hello())));
    rows.push(row(
        "a long extension",
        chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(2000))),
        Passes(hello()),
    ));
    rows.push(row("a longer extension", chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(40_000))), Broken));
    let many = "1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nh\r\n".repeat(400);
    rows.push(row("many extensions", chunked(&format!("{many}0\r\n\r\n")), Broken));
    // Requests in data are data.
    let size = SMUGGLED.len();
    rows.push(row(
        "a request in a chunk",
        chunked(&format!("{size:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        Passes(means("POST /ROW HTTP/1.1", SMUGGLED)),
    ));
    rows.push(row(
        "an end in a chunk",
        chunked(&format!("{:x}\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n", size + 5)),
        Passes(means("POST /ROW HTTP/1.1", &format!("0\r\n\r\n{SMUGGLED}"))),
    ));
    assert_fates(rows).await;
}

#[tokio::test]
async fn trailers_change_nothing_about_their_message() {
    let mut rows = Vec::new();
    for (line, name) in [
        ("Content-Length: 50", "content-length"),
        ("Transfer-Encoding: identity", ""),
        ("Host: evil", ""),
        ("Authorization: Basic eDp5", "authorization"),
        ("Proxy-Authorization: Basic eDp5", "proxy-authorization"),
        ("Connection: close", "connection"),
        ("Keep-Alive: timeout=1", "keep-alive"),
        ("Upgrade: h2c", "upgrade"),
        ("TE: chunked", ""),
        ("Trailer: Host", ""),
        ("Content-Type: text/html", "content-type"),
        ("X-Forwarded-For: 6.6.6.6", ""),
        ("Forwarded: for=6.6.6.6", "forwarded"),
        ("Cookie: admin=1", "cookie"),
        ("Expect: 100-continue", "expect"),
    ] {
        let field = line.split(':').next().unwrap();
        let body = format!("5\r\nhello\r\n0\r\n{line}\r\nX-Good: 1\r\n\r\n");
        let announced =
            posted(&format!("TE: trailers\r\nTrailer: X-Good, {field}\r\nTransfer-Encoding: chunked"), &body);
        let meaning = hello().with("host", "a").without_trailer(field);
        let meaning = if name.is_empty() { meaning } else { meaning.without(name) };
        rows.push(row(line, chunked(&body), Passes(meaning.clone())));
        rows.push(row(format!("{line}, announced"), announced, Passes(meaning)));
    }
    let broken = [
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n folded\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX: a\0b\r\n\r\n",
        "0\r\nX: a\rb\r\n\r\n",
        "0\r\nX: y\r\n\rZ\r\n\r\n",
        "0\r\nX: y\n\r\n",
    ];
    rows.extend(broken.map(|end| row(format!("{end:?}"), chunked(&format!("5\r\nhello\r\n{end}")), Broken)));
    rows.push(row(
        "trailers without end",
        chunked(&format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(20_000))),
        Broken,
    ));
    assert_fates(rows).await;
}

#[tokio::test]
async fn lines_of_a_head_end_in_one_way_and_are_headers() {
    let refused: &[&str] = &[
        "GET /ROW HTTP/1.1\nHost: a\n\n",
        "GET /ROW HTTP/1.1\rHost: a\r\r",
        "GET /ROW HTTP/1.1\r\nHost: a\n\r\n",
        "GET /ROW HTTP/1.1\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\n\n",
        "GET /ROW HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET /ROW HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "\nGET /ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET /ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET /ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        "\tGET /ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        "\0GET /ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{feff}GET /ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\n\tHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost\t: a\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX: y\u{8}\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX: y\u{1b}[2J\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\n\u{e9}: y\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\n[X]: y\r\n\r\n",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX: y\r\n\u{85}Z: a\r\n\r\n",
        "GET /ROW HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1\0\r\nHost: a\r\n\r\n",
        "GET  /ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ROW  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ROW\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\u{b}/ROW HTTP/1.1\r\nHost: a\r\n\r\n",
        // Versions.
        "GET /ROW HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.01\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/01.1\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1,1\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/0.9\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/9.9\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1x\r\nHost: a\r\n\r\n",
        "GET /ROW http/1.1\r\nHost: a\r\n\r\n",
        "GET /ROW HTTPS/1.1\r\nHost: a\r\n\r\n",
        "GET /ROW ICAP/1.0\r\nHost: a\r\n\r\n",
        "GET /ROW\r\nHost: a\r\n\r\n",
        "GET /ROW\r\n\r\n",
        "GET /ROW\r\n",
        "GET /ROW \r\n\r\n",
        "GET /ROW HTTP/\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1, GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ROW HTTP/1.1 GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ROW\u{a0}HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let mut rows: Vec<Row> = refused.iter().map(|bytes| row(format!("{bytes:?}"), bytes, Refused(400))).collect();
    rows.push(row("empty lines before", "\r\n\r\nGET /ROW HTTP/1.1\r\nHost: a\r\n\r\n", Passes(empty_get())));
    rows.push(row(
        "an empty header",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t\r\n\r\n",
        Passes(empty_get().with("x", "").with("y", "")),
    ));
    rows.push(row(
        "a colon in a value",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nX: y: Z: a\r\n\r\n",
        Passes(empty_get().with("x", "y: Z: a")),
    ));
    rows.push(row(
        "bytes past ASCII",
        b"GET /ROW HTTP/1.1\r\nHost: a\r\nX: \xe4\x8d\x8a\xff\r\n\r\n",
        Passes(empty_get()),
    ));
    rows.push(row("1.0 ends", "GET /ROW HTTP/1.0\r\nHost: a\r\n\r\n", Last(empty_get())));
    rows.push(row(
        "1.0 goes on",
        "GET /ROW HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        Passes(empty_get()),
    ));
    rows.push(row("1.0 with a body", "POST /ROW HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Last(hello())));
    rows.push(row("1.1 ends", "GET /ROW HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Last(empty_get())));
    rows.push(row(
        "1.1 ends, in a list",
        "GET /ROW HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, CLOSE\r\n\r\n",
        Last(empty_get()),
    ));
    assert_fates(rows).await;
}

#[tokio::test]
async fn a_request_has_one_host_wherever_it_is_named() {
    let hosts = [
        "a,b",
        "a, b",
        "a b",
        "a/b",
        "a/",
        "/",
        "a?b",
        "a#b",
        "a\\b",
        "u@a",
        "u:p@a",
        "@a",
        "a@",
        "a:",
        "a:x",
        "a:-1",
        "a:80:80",
        "a:65536",
        "a:99999999999",
        ":80",
        "http://a",
        "//a",
        "[::1",
        "::1",
        "[::1]x",
        "[zz]",
        "a%00b",
        "a%2fb",
        "<a>",
        "a\"",
        "a'b c",
        "a;b=c d",
        "\u{e4}.example",
        "a\u{a0}",
        "a\tb",
        "a\0",
        "a\u{b}",
        "{a}",
        "a|b",
        "a^b",
        "a`b",
    ];
    let mut rows: Vec<Row> = hosts
        .iter()
        .filter(|host| **host != "a:")
        .map(|host| row(format!("host {host:?}"), got("/ROW", &format!("Host: {host}\r\n")), Refused(400)))
        .collect();
    for (name, lines) in [
        ("none", ""),
        ("the same twice", "Host: a\r\nHost: a\r\n"),
        ("two", "Host: a\r\nHost: b\r\n"),
        ("two in two spellings", "Host: a\r\nhOST: b\r\n"),
        ("two with one between", "Host: a\r\nX: y\r\nHost: b\r\n"),
        ("one with nothing", "Host: a\r\nHost:\r\n"),
        ("folded", "Host: a\r\n b\r\n"),
        ("spaced", "Host: a\r\nHost : b\r\n"),
        ("indented", " Host: b\r\nHost: a\r\n"),
        ("indented behind", "Host: a\r\n Host: b\r\n"),
        ("nominated", "Host: a\r\nConnection: host\r\n"),
    ] {
        rows.push(row(format!("hosts: {name}"), got("/ROW", lines), Refused(400)));
    }
    // What says so by another name is another header.
    for line in ["X-Host: b", "X-Original-Host: b", "Hosts: b", "X-HTTP-Host-Override: b"] {
        rows.push(row(line, got("/ROW", &format!("Host: a\r\n{line}\r\n")), Passes(empty_get().with("host", "a"))));
    }
    // The target's authority is the host (RFC 9112 §3.2.2).
    for (target, host) in [
        ("http://b/ROW", "b"),
        ("http://b:81/ROW", "b:81"),
        ("HTTP://b/ROW", "b"),
        ("https://b/ROW", "b"),
        ("http://B.Example/ROW", "b.example"),
    ] {
        let meaning = Meaning::clone(&empty_get()).with("host", host);
        rows.push(row(target, got(target, "Host: a\r\n"), Passes(meaning)));
    }
    for target in [
        "http://u@b/ROW",
        "http://u:p@b/ROW",
        "http://a@b@c/ROW",
        "http://a:80@b/ROW",
        "http:///ROW",
        "http:/ROW",
        "http:ROW",
        "http://a\\@b/ROW",
        "http://a,b/ROW",
        "http://a b/ROW",
        "ftp://b/ROW",
        "file:///ROW",
        "gopher://b/ROW",
        "ws://b/ROW",
        "b/ROW",
        "b:80/ROW",
        "b:80",
        "ROW",
        "?ROW",
        "#ROW",
        "*",
        "**",
        "http://[::1/ROW",
        "http://b:x/ROW",
        "http://b:99999/ROW",
        "@b/ROW",
        ":80/ROW",
        "\\ROW",
        "http://b%00/ROW",
    ] {
        rows.push(row(format!("target {target:?}"), got(target, "Host: a\r\n"), Refused(400)));
    }
    rows.push(row(
        "two slashes are no authority",
        got("//b/../ROW", "Host: a\r\n"),
        Passes(means("GET //ROW HTTP/1.1", "").with("host", "a")),
    ));
    rows.push(row("absolute without Host", got("http://b/ROW", ""), Refused(400)));
    rows.push(row("absolute with two", got("http://a/ROW", "Host: a\r\nHost: a\r\n"), Refused(400)));
    assert_fates(rows).await;
}

#[tokio::test]
async fn connection_takes_out_what_is_for_one_hop_and_nothing_else() {
    let mut rows: Vec<Row> = [
        "close, x-forwarded-for, authorization",
        "authorization",
        "Authorization",
        "x-forwarded-for",
        "X-Forwarded-Host",
        "x-forwarded-proto",
        "forwarded",
        "x-real-ip",
        "host",
        "cookie",
        "content-length",
        "content-type",
        "close, Cookie",
        "keep-alive,host",
        "x\r\nConnection: authorization",
        "\tauthorization\t",
        "upgrade, host",
    ]
    .iter()
    .map(|value| {
        row(
            format!("Connection: {value:?}"),
            got("/ROW", &format!("Host: a\r\nAuthorization: Basic eDp5\r\nCookie: a=b\r\nConnection: {value}\r\n")),
            Refused(400),
        )
    })
    .collect();
    let drop = |lines: &str, meaning: Meaning| {
        row(format!("{lines:?}"), got("/ROW", &format!("Host: a\r\n{lines}")), Passes(meaning))
    };
    rows.push(drop(
        "Connection: x-drop\r\nX-Drop: 1\r\nX-Keep: 1\r\n",
        empty_get().without("x-drop").with("x-keep", "1"),
    ));
    rows.push(drop("Connection: keep-alive\r\nConnection: x-drop\r\nX-Drop: 1\r\n", empty_get().without("x-drop")));
    rows.push(drop("Connection: , ,,x-drop,\r\nX-Drop: 1\r\n", empty_get().without("x-drop")));
    rows.push(drop("Connection: x-drop\r\nX-Drop: 1\r\nX-Drop: 2\r\n", empty_get().without("x-drop")));
    rows.push(drop(
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nTE: gzip\r\n",
        empty_get().without("keep-alive").without("proxy-connection").without("proxy-authorization").without("te"),
    ));
    rows.push(drop("TE: trailers, chunked\r\n", empty_get().with("te", "trailers")));
    rows.push(drop("Connection: transfer-encoding\r\n", empty_get().without("transfer-encoding")));
    // Upgrades to another version of HTTP would let what follows past us.
    let h2c = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    for connection in [
        "Upgrade, HTTP2-Settings",
        "Upgrade",
        "HTTP2-Settings",
        "close-not, upgrade, http2-settings",
        "keep-alive, Upgrade, HTTP2-Settings",
    ] {
        let mut meaning = empty_get().without("upgrade");
        if connection.to_ascii_lowercase().contains("http2") {
            meaning = meaning.without("http2-settings");
        }
        rows.push(drop(&format!("Connection: {connection}\r\n{h2c}"), meaning));
    }
    rows.push(drop("Upgrade: websocket\r\n", empty_get().without("upgrade")));
    rows.push(drop("Connection: Upgrade\r\n", empty_get().without("upgrade")));
    rows.push(drop("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", empty_get()));
    // An upgrade that is not taken leaves a connection on which requests are requests.
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    rows.push(drop(&format!("{websocket}Sec-WebSocket-Version: 13\r\n"), empty_get().with("upgrade", "websocket")));
    rows.push(drop(&format!("{websocket}Sec-WebSocket-Version: 777\r\n"), empty_get()));
    let posted = posted(&format!("{}Content-Length: 5", "Connection: Upgrade\r\nUpgrade: h2c\r\n"), "hello");
    rows.push(row("an upgrade with a body", posted, Passes(hello().without("upgrade"))));
    assert_fates(rows).await;
}

#[tokio::test]
async fn methods_and_expectations_change_no_framing() {
    let mut rows = Vec::new();
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PUT", "PROPFIND", "QUERY", "get", "GETX", "M-SEARCH"] {
        let line = format!("{method} /ROW HTTP/1.1");
        rows.push(row(
            format!("{method} with a length"),
            format!("{line}\r\nHost: a\r\nContent-Length: 35\r\n\r\n{SMUGGLED}"),
            Passes(means(&line, SMUGGLED)),
        ));
        rows.push(row(
            format!("{method} with chunks"),
            format!("{line}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            Passes(means(&line, SMUGGLED)),
        ));
        rows.push(row(format!("{method} without"), format!("{line}\r\nHost: a\r\n\r\n"), Passes(means(&line, ""))));
    }
    let line = "HEAD /ROW HTTP/1.1";
    rows.push(row(
        "HEAD with a length",
        format!("{line}\r\nHost: a\r\nContent-Length: 35\r\n\r\n{SMUGGLED}"),
        Passes(means(line, SMUGGLED)),
    ));
    rows.push(row(
        "HEAD with chunks",
        format!("{line}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        Passes(means(line, SMUGGLED)),
    ));
    for (name, line) in [
        ("authority", "CONNECT a:443 HTTP/1.1"),
        ("path", "CONNECT /ROW HTTP/1.1"),
        ("absolute", "CONNECT http://a/ROW HTTP/1.1"),
        ("chunked", "CONNECT a:443 HTTP/1.1\r\nTransfer-Encoding: chunked"),
        ("length", "CONNECT a:443 HTTP/1.1\r\nContent-Length: 5"),
    ] {
        rows.push(row(format!("CONNECT, {name}"), format!("{line}\r\nHost: a:443\r\n\r\n"), Refused(405)));
    }
    rows.push(row("TRACE", "TRACE /ROW HTTP/1.1\r\nHost: a\r\n\r\n", Passes(means("TRACE /ROW HTTP/1.1", ""))));
    for expect in [
        "100-continue",
        "100-Continue",
        "100-continue, 100-continue",
        "100-continued",
        "200-ok",
        "\"100-continue\"",
        "y 100-continue",
        "100-continue;x",
        "",
    ] {
        rows.push(row(
            format!("Expect: {expect:?}"),
            posted(&format!("Expect: {expect}\r\nContent-Length: 5"), "hello"),
            Passes(hello().without("expect")),
        ));
        rows.push(row(
            format!("Expect: {expect:?}, no body"),
            got("/ROW", &format!("Host: a\r\nExpect: {expect}\r\n")),
            Passes(empty_get().without("expect")),
        ));
    }
    rows.push(row(
        "Expect twice",
        posted("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5", "hello"),
        Passes(hello().without("expect")),
    ));
    rows.push(row("Expect folded", posted("Expect: \r\n 100-continue\r\nContent-Length: 5", "hello"), Refused(400)));
    rows.push(row(
        "Expect with both framings",
        posted("Expect: 100-continue\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", EITHER),
        Refused(400),
    ));
    // Overrides by header are the upstream's affair and change nothing here.
    rows.push(row(
        "method override",
        posted("X-HTTP-Method-Override: HEAD\r\nContent-Length: 5", "hello"),
        Passes(hello()),
    ));
    rows.push(row("range", got("/ROW", "Host: a\r\nRange: bytes=0-\r\n"), Passes(empty_get())));
    assert_fates(rows).await;
}

#[tokio::test]
async fn a_target_is_one_path() {
    let mut rows = Vec::new();
    for target in [
        "/../ROW",
        "/x/../../ROW",
        "/%2e%2e/ROW",
        "/%00/ROW",
        "/ROW\0",
        "/ROW\u{1}",
        "/ROW\u{7f}",
        "/ROW%",
        "/ROW%zz",
        "/..%2fROW",
        "/..%5cROW",
        "/ROW\u{b}x",
        "/ROW\rX",
    ] {
        rows.push(row(format!("{target:?}"), got(target, "Host: a\r\n"), Refused(400)));
    }
    rows.push(row("two slashes", got("//ROW", "Host: a\r\n"), Passes(means("GET //ROW HTTP/1.1", ""))));
    for target in ["/x/../ROW", "/./ROW", "/x/%2e%2e/ROW"] {
        rows.push(row(target, got(target, "Host: a\r\n"), Passes(empty_get())));
    }
    // What would be a line end once it is decoded stays as it came.
    let encoded = "/ROW?x=%0d%0aX:%20y%0d%0a%0d%0aGET%20/smuggled%20HTTP/1.1%0d%0aHost:%20a%0d%0a%0d%0a";
    rows.push(row(
        "line ends in a query",
        got(encoded, "Host: a\r\n"),
        Passes(means(&format!("GET {encoded} HTTP/1.1"), "")),
    ));
    rows.push(row("a space in a query", got("/ROW?x HTTP/1.1 y", "Host: a\r\n"), Refused(400)));
    assert_fates(rows).await;
}
