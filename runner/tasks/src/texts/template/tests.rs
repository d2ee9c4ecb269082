use super::*;
use serde_json::Value as Json;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");

fn read(path: &str) -> Json {
    serde_json::from_slice(&std::fs::read(format!("{GOLDEN}/{path}")).unwrap()).unwrap()
}

fn messages(json: &Json) -> Vec<Message> {
    let text = |message: &Json, name: &str| message[name].as_str().unwrap().to_string();
    let messages = json.as_array().unwrap().iter();
    messages.map(|message| Message { role: text(message, "role"), content: text(message, "content") }).collect()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate { source: source.into(), tokens: BTreeMap::from([("bos_token".into(), "<s>".into())]) }
}

fn hello(source: &str) -> Result<String> {
    template(source).render(&[Message { role: "user".into(), content: "Hello".into() }])
}

#[test]
fn texts_and_refusals_are_those_of_transformers() {
    let reference = read("templates/reference.json");
    let tokens = serde_json::from_value::<BTreeMap<String, String>>(reference["tokens"].clone()).unwrap();
    let cases = reference["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let source = std::fs::read_to_string(format!("{GOLDEN}/templates/{name}")).unwrap();
        let template = ChatTemplate { source, tokens: tokens.clone() };
        let said = case["conversation"].as_str().unwrap();
        let found = template
            .rendered(&messages(&reference["conversations"][said]), case["add_generation_prompt"].as_bool().unwrap());
        let wanted = match case["text"].as_str() {
            Some(text) => Ok(text.to_string()),
            None => Err(format!("the chat template refuses the messages: {}", case["error"].as_str().unwrap())),
        };
        let found = found.map_err(|error| error.to_string());
        if found != wanted {
            wrong.push(format!("{name}, {said}:\n{found:?}\n{wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_checkpoints_own_template_gives_its_texts() {
    let config = read("llama/chat/tokenizer_config.json");
    let template = ChatTemplate {
        source: config["chat_template"].as_str().unwrap().into(),
        tokens: BTreeMap::from([("bos_token".into(), config["bos_token"].as_str().unwrap().into())]),
    };
    let reference = read("llama/chat/reference.json");
    for case in reference["conversations"].as_array().unwrap() {
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        assert_eq!(template.rendered(&messages(&case["messages"]), prompt).unwrap(), case["text"].as_str().unwrap());
    }
    for case in reference["errors"].as_array().unwrap() {
        let found = template.render(&messages(&case["messages"])).unwrap_err().to_string();
        assert!(found.ends_with(case["message"].as_str().unwrap()), "{found}");
    }
}

#[test]
fn what_templates_in_use_rely_on() {
    for (source, text) in [
        ("{{ messages[0] | tojson }}", r#"{"role": "user", "content": "Hello"}"#),
        ("{{ '<é>' | tojson }}", "\"<é>\""),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", ""),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hello!"),
        ("{%- generation -%} a {%- endgeneration +%}\n b", "a\n b"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ tools is none }} {{ bos_token }}", "True <s>"),
        ("{% set x = namespace(n=1) %}{% set x.n = x.n + 1 %}{{ x.n }}", "2"),
        ("{{ dict(a=1) | tojson(indent=1) }}", "{\n \"a\": 1\n}"),
        ("{{ raise_exception is defined }}{{ undefined_name }}", "True"),
        ("{{ debug is defined }}", "False"),
    ] {
        assert_eq!(hello(source).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn broken_templates_are_refused_in_one_line() {
    for source in
        ["{{ not even jinja", "{% include 'x' %}", "{{ ''.no() }}", "{{ none.a.b }}", "{% generation %}", "{{ 1 / 0 }}"]
    {
        let problem = hello(source).unwrap_err().to_string();
        assert!(problem.starts_with("the chat template refuses the messages: "), "{source}: {problem}");
        assert!(!problem.contains('\n'), "{source}: {problem}");
    }
}

#[test]
fn large_templates_end_with_an_error() {
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    for source in [
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ range(10 ** 9) | list }}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ 'x' * 20000000 }}",
        "{{ '%1000000000d' % 1 }}",
        &nested,
    ] {
        let problem = hello(source).unwrap_err().to_string();
        assert!(problem.starts_with("the chat template"), "{problem}");
        assert!(!problem.contains('\n'));
    }
}
