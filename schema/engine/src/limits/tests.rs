//! Each limit by name, each attack, and what must keep passing. `differential` compares with the library's parser.

mod differential;

use std::time::{Duration, Instant};

use super::*;
use crate::syntax;

/// Reads a document; what it amounts to.
fn check<'d>(document: &'d str, limits: &Limits) -> Result<DocumentStats<'d>, LimitError> {
    syntax::parse(document, limits).map(|tree| tree.shape)
}

/// An unoptimised parser is ten to twenty times slower, and shares its core while tests run.
const PARSE_BUDGET: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 50 });

/// The best of several tries, in time on the core where the system tells it.
fn is_parsed_in_time(document: &str) -> bool {
    let started = Instant::now();
    let time = || {
        let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let on_core = schedule.and_then(|text| text.split(' ').next()?.parse().ok());
        on_core.map_or_else(|| started.elapsed(), Duration::from_nanos)
    };
    (0..5).any(|_| {
        let before = time();
        drop(check(document, &Limits::gateway()));
        time().saturating_sub(before) < PARSE_BUDGET
    })
}

#[track_caller]
fn passes(document: &str) -> DocumentStats<'_> {
    check(document, &Limits::public()).unwrap_or_else(|refusal| panic!("{refusal}\n{document:.500}"))
}

#[track_caller]
fn refusal(document: &str) -> LimitError {
    check(document, &Limits::public()).expect_err("it should be refused")
}

#[track_caller]
fn refused(document: &str, code: &str, what: &str) {
    let refusal = refusal(document);
    assert_eq!(refusal.kind.as_str(), code, "{refusal}");
    assert!(refusal.message.contains(what), "{refusal}");
}

/// `n` is the last that passes.
#[track_caller]
fn ends_at(n: usize, code: &str, what: &str, document: impl Fn(usize) -> String) {
    passes(&document(n));
    refused(&document(n + 1), code, what);
}

fn times(n: usize, make: impl Fn(usize) -> String) -> String {
    (0..n).map(make).collect()
}

#[test]
fn a_document_may_have_64_kib() {
    ends_at(64 << 10, "PAYLOAD_TOO_LARGE", "bytes", |n| format!("{{a}}{}", " ".repeat(n - 3)));
}

#[test]
fn a_document_may_have_2000_tokens() {
    ends_at(2_000, "COST_LIMIT", "tokens", |n| format!("{{a{{{}}}}}", " b".repeat(n - 5)));
}

#[test]
fn every_lexical_token_counts_once() {
    let counted = [
        ("{a}", 3),
        (
            "query Q($a: [Int!]! = [1 -2.5e3 \"x\" \"\"\"y\"\"\"] @d) @e { b: a(c: {d: $a, e: [E, null]}) }",
            44,
        ),
        ("{ ...F ...on T{a} ... @include(if: true) {b} } #c\nfragment F on T {c}", 28),
    ];
    for (document, tokens) in counted {
        assert_eq!(passes(document).tokens, tokens, "{document}");
    }
}

type Nest = fn(usize) -> String;

#[test]
fn brackets_of_all_kinds_nest_64_deep() {
    let limits = Limits { depth: 100, ..Limits::public() };
    let nests: [(&str, Nest); 6] = [
        ("fields", |n| format!("{}a{}", "{a".repeat(n), "}".repeat(n))),
        ("inline fragments", |n| format!("{{{}a{}}}", "...{".repeat(n - 1), "}".repeat(n - 1))),
        ("lists", |n| format!("{{a(b:{}{})}}", "[".repeat(n - 2), "]".repeat(n - 2))),
        ("objects", |n| format!("{{a(b:{}1{})}}", "{a:".repeat(n - 2), "}".repeat(n - 2))),
        ("defaults", |n| format!("query($a:I={}{}){{a}}", "[".repeat(n - 1), "]".repeat(n - 1))),
        ("types", |n| format!("query($a:{}I{}){{a}}", "[".repeat(n - 1), "]".repeat(n - 1))),
    ];
    let stack = if cfg!(debug_assertions) { 1 << 20 } else { 256 << 10 };
    for (kind, nest) in nests {
        check(&nest(64), &limits).unwrap_or_else(|refusal| panic!("{kind}: {refusal}"));
        let refusal = check(&nest(65), &limits).expect_err(kind);
        assert_eq!(refusal.kind, LimitErrorKind::Depth, "{kind}: {refusal}");
        let small_stack = std::thread::Builder::new().stack_size(stack);
        let read = move || syntax::parse(&nest(64), &limits).map(|tree| tree.lower()).is_ok();
        let parsed = small_stack.spawn(read).expect("a thread starts").join();
        assert!(parsed.expect("the parser does not panic"), "{kind}");
    }
}

#[test]
fn no_setting_raises_nesting_past_the_ceiling() {
    let limits = Limits { nesting: usize::MAX, ..Limits::gateway() };
    let nest = |n: usize| format!("{{a(b:{}{})}}", "[".repeat(n - 2), "]".repeat(n - 2));
    assert!(check(&nest(128), &limits).is_ok());
    assert_eq!(check(&nest(129), &limits).expect_err("too deep").kind, LimitErrorKind::Depth);
}

#[test]
fn a_document_may_have_30_aliases() {
    ends_at(30, "COST_LIMIT", "aliases", |n| format!("{{x{{{}}}}}", times(n, |i| format!("a{i}:b "))));
}

#[test]
fn colons_of_arguments_are_no_aliases() {
    assert_eq!(passes("query($a:I){x(a:1 b:{c:2})@d(e:3){y : z}}").aliases, 1);
}

#[test]
fn a_document_may_have_25_directives() {
    ends_at(25, "COST_LIMIT", "directives", |n| {
        format!("query($a:I@d)@d{{a ...@d{{b}}...F@d}}fragment F on T@d{{c{}}}", "@d".repeat(n - 5))
    });
}

#[test]
fn an_operation_may_have_20_root_fields() {
    ends_at(20, "COST_LIMIT", "root fields", |n| format!("{{{}}}", "a{b c}".repeat(n)));
    ends_at(20, "COST_LIMIT", "root fields", |n| {
        format!("{{{}...F ...{{...F}}}}fragment F on Q{{a b ...on Q{{c}}}}", " a".repeat(n - 6))
    });
}

#[test]
fn root_fields_are_counted_per_operation() {
    let shape = passes("query A{a b}mutation B{c ...F}fragment F on M{d{x y} e}");
    assert_eq!(shape.operations.iter().map(|o| o.root_fields).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_document_may_have_10_operations() {
    ends_at(10, "COST_LIMIT", "operations", |n| times(n, |i| format!("query Q{i}{{a}}")));
}

#[test]
fn a_document_may_have_50_fragments() {
    ends_at(50, "COST_LIMIT", "fragments", |n| {
        format!("{{a}}{}", times(n, |i| format!("fragment F{i} on T{{a}}")))
    });
}

#[test]
fn a_document_may_have_10000_expanded_selections() {
    // Below the root: 100 spreads of a fragment of 98 selections, each spread counting itself.
    let document = |n: usize| {
        format!("{{x{{{}}}{}}}fragment F on T{{{}}}", "...F ".repeat(100), " y".repeat(n), "a ".repeat(98))
    };
    assert_eq!(passes(&document(0)).selections, 9_901);
    let limits = Limits { root_fields: 100, ..Limits::public() };
    assert_eq!(check(&document(99), &limits).expect("at the limit").selections, 10_000);
    let refusal = check(&document(100), &limits).expect_err("past the limit");
    assert_eq!((refusal.kind, refusal.message.contains("selections")), (LimitErrorKind::Cost, true));
}

#[test]
fn the_selections_of_all_operations_add_up() {
    let operations = times(4, |i| format!("query Q{i}{{x{{{}}}}}", "...F ".repeat(30)));
    refused(&format!("{operations}fragment F on T{{{}}}", "a ".repeat(99)), "COST_LIMIT", "selections");
}

#[test]
fn fields_nest_12_deep() {
    ends_at(12, "DEPTH_LIMIT", "nested fields", |n| format!("{}{}", "{a".repeat(n), "}".repeat(n)));
}

#[test]
fn inline_fragments_add_no_depth_and_spreads_add_their_fragment() {
    assert_eq!(passes("{a{...on T{...{b}}}}").depth, 2);
    assert_eq!(passes("{a{...F}}fragment F on T{b{...G}}fragment G on T{c d{e}}").depth, 4);
    ends_at(12, "DEPTH_LIMIT", "nested fields", |n| {
        format!(
            "{{...F0}}{}fragment F{} on T{{a}}",
            times(n - 1, |i| { format!("fragment F{i} on T{{a{{...F{}}}}}", i + 1) }),
            n - 1
        )
    });
}

#[test]
fn selection_sets_nest_64_deep_through_fragments() {
    ends_at(8, "DEPTH_LIMIT", "nested selection sets", |n| {
        let chain =
            times(n - 1, |i| format!("fragment F{i} on T{}...F{}{}", "{...".repeat(8), i + 1, "}".repeat(8)));
        format!("{}...F0{}{chain}fragment F{} on T{{a}}", "{...".repeat(7), "}".repeat(7), n - 1)
            .replace("{......", "{...")
    });
}

#[test]
fn introspection_may_go_deeper() {
    let chain = |n: usize| {
        let of_types = "ofType{".repeat(n - 4);
        format!("{{__schema{{types{{fields{{{of_types}name{}}}}}}}}}", "}".repeat(n - 4))
    };
    ends_at(20, "DEPTH_LIMIT", "nested introspection fields", chain);
    assert_eq!(passes(&chain(20)).introspection_depth, 20);
    assert_eq!(passes(&chain(20)).depth, 0);
    let through_fragments = "query{...on Query{s:__schema{...S}}a{b}}fragment S on __Schema{types{name}}";
    assert_eq!(passes(through_fragments).introspection_depth, 3);
    assert_eq!(passes(through_fragments).depth, 2);
}

#[test]
fn only_the_root_is_introspection() {
    let below = |n: usize| format!("{{a{{{}__schema{}}}}}", "__schema{".repeat(n), "}".repeat(n));
    refused(&below(11), "DEPTH_LIMIT", "nested fields");
    let by_fragment =
        format!("{{a{{...F}}}}fragment F on Query{{{}b{}}}", "__schema{".repeat(11), "}".repeat(11));
    refused(&by_fragment, "DEPTH_LIMIT", "nested fields");
}

#[test]
fn lists_of_introspection_nest_twice() {
    let nest =
        |n: usize| format!("{{__type(name:\"A\"){{{}name{}}}}}", "fields{type{".repeat(n), "}}".repeat(n));
    ends_at(2, "DEPTH_LIMIT", "nested introspection lists", nest);
    passes("{form{fields{fields{fields{fields{name}}}}}}");
    let through = "{__schema{types{...T}}}fragment T on __Type{fields{type{...U}}}\
                   fragment U on __Type{interfaces{possibleTypes{name}}}";
    refused(through, "DEPTH_LIMIT", "nested introspection lists");
}

#[test]
fn the_introspection_query_of_tools_passes() {
    let of_types = "kind name ofType{".repeat(9);
    let document = format!(
        "query IntrospectionQuery{{__schema{{description queryType{{name kind}} mutationType{{name kind}}
        subscriptionType{{name kind}} types{{...FullType}} directives{{name description isRepeatable locations
        args(includeDeprecated:true){{...InputValue}}}}}}}}
        fragment FullType on __Type{{kind name description specifiedByURL isOneOf fields(includeDeprecated:true){{
        name description args(includeDeprecated:true){{...InputValue}} type{{...TypeRef}} isDeprecated
        deprecationReason}} inputFields(includeDeprecated:true){{...InputValue}} interfaces{{...TypeRef}}
        enumValues(includeDeprecated:true){{name description}} possibleTypes{{...TypeRef}}}}
        fragment InputValue on __InputValue{{name description type{{...TypeRef}} defaultValue}}
        fragment TypeRef on __Type{{{of_types}kind name{}}}",
        "}".repeat(9)
    );
    let shape = passes(&document);
    assert_eq!((shape.depth, shape.introspection_depth), (0, 15));
}

#[test]
fn the_shape_says_what_kind_each_operation_is() {
    let shape = passes("query A{a}mutation B{b}subscription C{c}fragment query on T{d}");
    let kinds: Vec<_> = shape.operations.iter().map(|o| (o.kind, o.name)).collect();
    assert_eq!(
        kinds,
        [
            (OperationKind::Query, Some("A")),
            (OperationKind::Mutation, Some("B")),
            (OperationKind::Subscription, Some("C")),
        ]
    );
    assert_eq!(shape.operation(Some("B")).map(|o| o.kind), Some(OperationKind::Mutation));
    assert_eq!(shape.operation(None), None);
    assert_eq!(passes("{a}").operation(None).map(|o| o.kind), Some(OperationKind::Query));
}

#[test]
fn keywords_end_where_names_end() {
    for document in [
        "queryAb{a}",
        "mutation_c{b}",
        "{a}fragmentF on T{d}",
        "{a}fragment on on T{d}",
        "{a}fragment F onT{d}",
    ] {
        refused(document, "GRAPHQL_PARSE_FAILED", "Unexpected name");
    }
    assert_eq!(passes("{... on #c\n Foo{a}}").depth, 1);
    assert_eq!(passes("{... on ,\u{feff}\nFoo{a}}").depth, 1);
    assert_eq!(passes("{...onFoo on query{on}}").selections, 4);
}

#[test]
fn nested_values_are_refused() {
    for document in [
        format!("{{a(b:{}", "[".repeat(2_000)),
        format!("{{a(b:{}{})}}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("{{a(b:{}1{})}}", "{a:".repeat(1_500), "}".repeat(1_500)),
        format!("{{a(b:{}1{})}}", "[{a:".repeat(1_000), "}]".repeat(1_000)),
        format!("query($a:I={}{}){{a}}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("query($a:{}I{}){{a}}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("{{a@b(c:{}{})}}", "[".repeat(2_000), "]".repeat(2_000)),
        "{a".repeat(2_000),
        format!("{{{}", "...on A@a{".repeat(2_000)),
    ] {
        assert!(
            matches!(refusal(&document).kind, LimitErrorKind::Depth | LimitErrorKind::Cost),
            "{document:.40}"
        );
    }
}

#[test]
fn a_fragment_bomb_is_refused() {
    let bomb = |n: usize, spread: &str| {
        let chain = times(n, |i| {
            let next = format!("...F{} ", i + 1);
            format!("fragment F{i} on Q{{{}}}", spread.replace('!', &next))
        });
        format!("{{...F0}}{chain}fragment F{n} on Q{{a}}")
    };
    for spread in ["!!", "!...{!}", "x{!}y{!}", "...on Q{!}...@skip(if:true){!}"] {
        let document = bomb(30, spread);
        let started = Instant::now();
        assert!(matches!(refusal(&document).kind, LimitErrorKind::Cost | LimitErrorKind::Depth), "{spread}");
        assert!(started.elapsed() < Duration::from_millis(100));
    }
    refused(&bomb(22, "!!"), "COST_LIMIT", "selections");
    refused(&bomb(22, "!!").replace("{...F0}", "{a}"), "COST_LIMIT", "selections");
}

#[test]
fn a_fragment_cycle_is_refused() {
    for document in [
        "{...A}fragment A on T{...A}",
        "{a}fragment A on T{b{...B}}fragment B on T{...on T{...C}}fragment C on T{...A}",
    ] {
        refused(document, "GRAPHQL_VALIDATION_FAILED", "within itself");
    }
    assert_eq!(passes("{...A ...B}fragment A on T{...B}fragment B on T{b}").selections, 5);
    assert_eq!(passes("{...Unknown}").selections, 1);
}

#[test]
fn a_block_string_without_an_end_is_refused() {
    // The parser takes it for 2 × 900 strings and needs 2.5 s.
    let strings = "\"\"\"\"\\\\".repeat(900);
    refused(
        &format!("{{a(b:[\"\"\"\\\\{strings}\"])}}#{}", "x".repeat(58_000)),
        "GRAPHQL_PARSE_FAILED",
        "string",
    );
    refused("{a(b:[\"\"\"x\"])}", "GRAPHQL_PARSE_FAILED", "Unterminated string");
}

#[test]
fn long_runs_of_nothing_are_refused() {
    for ignored_bytes in [",", "#", "# \n", "\u{feff}", " \t\r\n"] {
        let document = format!("{{a{}\nb}}", ignored_bytes.repeat((1 << 20) / ignored_bytes.len() - 10));
        refused(&document, "PAYLOAD_TOO_LARGE", "bytes");
        let refusal = check(&document, &Limits::gateway()).expect_err("too much ignored_bytes");
        assert_eq!(
            (refusal.kind, refusal.message.contains("white space")),
            (LimitErrorKind::Cost, true),
            "{refusal}"
        );
    }
    let string = format!("{{a(b:\"{}\")}}", "x".repeat(100_000));
    assert_eq!(check(&string, &Limits::gateway()).expect_err("a long string").kind, LimitErrorKind::Cost);
}

#[test]
fn the_worst_documents_that_pass_are_parsed_in_time() {
    let gateway = Limits::gateway();
    let rest = |weight: usize| (256 << 10) / weight - 100;
    for (kind, document) in [
        ("fields", format!("{{x{{{}}}}}", " a".repeat(9_990))),
        ("comments", format!("{{a {}}}", "#\n".repeat(rest(5)))),
        ("one comment", format!("{{a{{b#{}\n}}}}", "x".repeat(rest(4)))),
        ("commas", format!("{{a{{b{}}}}}", ",".repeat(rest(1)))),
        ("string", format!("{{a(b:\"{}\")}}", "x".repeat(rest(4)))),
        ("block string", format!("{{a(b:\"\"\"{}\"\"\")}}", "\n ".repeat(rest(8)))),
        ("number", format!("{{a(b:0.{})}}", "1".repeat(rest(4)))),
        ("name", format!("{{{}}}", "x".repeat((1 << 20) - 10))),
        ("arguments", format!("{{a({})}}", "a:1,".repeat(4_990))),
        ("variables", format!("query({}){{a}}", "$a:A,".repeat(3_740))),
        ("list", format!("{{a(b:[{}])}}", "A ".repeat(14_980))),
    ] {
        check(&document, &gateway).unwrap_or_else(|refusal| panic!("{kind}: {refusal}"));
        assert!(is_parsed_in_time(&document), "{kind}");
    }
}

#[test]
fn unbalanced_brackets_are_refused_where_they_show() {
    for (document, line, column) in [
        ("{a", 1, 3),
        ("{a}}", 1, 4),
        ("{a(b:[1)}", 1, 8),
        ("{a(b:{c:1])}", 1, 10),
        ("{\r\n  é\n", 2, 3),
        ("{\r  a)", 2, 4),
        ("{a(b:\"é\" ]", 1, 10),
        (")", 1, 1),
    ] {
        let refusal = refusal(document);
        assert_eq!(refusal.kind.as_str(), "GRAPHQL_PARSE_FAILED");
        assert_eq!((refusal.line, refusal.column), (line, column), "{document:?} {refusal}");
    }
}

#[test]
fn malformed_tokens_are_refused() {
    for document in [
        "{a?}",
        "{é}",
        "{\u{0}}",
        "{a;b}",
        "{..a}",
        "{.a}",
        "{a(b:1.)}",
        "{a(b:.5)}",
        "{a(b:1e)}",
        "{a(b:1a)}",
        "{a(b:-)}",
        "{a(b:1.5x)}",
        "{a(b:\"x)}",
        "{a(b:\"x\ny\")}",
        "{a(b:\"\\x\")}",
        "{a(b:\"\\u12G4\")}",
        "{a(b:\"\\u12",
        "{a(b:\"\\u{}\")}",
        "{a(b:\"\\",
        "{a(b:\"\"\"x\"\")}",
        "{a(b:\"\"\"x\\\"\"\")}",
        "{a}\u{feff}é",
        "type A{a:B}",
        "{a(b:'x')}",
        "{a}\u{2028}",
        "{a}%",
        "{a(b:01)}",
        "{a(b:-00)}",
        "{a(b:1.2.3)}",
        "{a(b:\"\\uD83D\")}",
        "{a(b:\"\\uDE00\\uD83D\")}",
        "{a(b:\"\\u{110000}\")}",
    ] {
        assert_eq!(refusal(document).kind.as_str(), "GRAPHQL_PARSE_FAILED", "{document:?}");
    }
}

#[test]
fn brackets_in_strings_and_comments_are_text() {
    let document = "\u{feff}{ a(b:\"[[{{\\\"((\\u00e9\\\\\" c:\"\"\"}} \"x\" \\\"\"\" [[\"\"\" d:\"\" e:\"\"\"\"\"\")\r# }}}\"\"\"\r}";
    passes(document);
    passes("{a(b:\"\\u{1F600} \\uD83D\\uDE00 😀\")}");
}

#[test]
fn a_refusal_repeats_at_most_64_characters() {
    let long = "z".repeat(5_000);
    for document in [long.clone(), format!("{{a}}fragment {long} on T{{...{long}}}")] {
        let refusal = refusal(&document);
        assert!(refusal.message.chars().filter(|&c| c == 'z').count() <= 64, "{refusal}");
        assert!(refusal.message.len() < 160);
    }
}

#[test]
fn nothing_at_all_is_no_document() {
    for document in [
        "",
        " ,\n",
        "# nothing",
        "query",
        "{}",
        "{a{}}",
        "{a(:)}",
        "{a()}",
        "query(){a}",
        "\"\"\"a description\"\"\" {a}",
    ] {
        refused(document, "GRAPHQL_PARSE_FAILED", "Syntax Error: ");
    }
}
