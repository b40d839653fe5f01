//! JSON values as YAML (1.2), in blocks.
//!
//! Every text is in double quotes, as JSON has it: what is a text in JSON stays one, whatever a reader of YAML would
//! make of it without, and each JSON string is a YAML one.

use serde_json::Value;

/// The value as one document.
pub fn text(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                // The API's names are plain words, which need no quotes.
                text.push_str(&format!("{indent}{name}:"));
                below(value, depth, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                // What is nested begins on the line of its dash.
                let mut nested = String::new();
                block(item, depth + 1, &mut nested);
                text.push_str(&format!("{indent}- {}", nested.trim_start()));
            }
        }
        flat => text.push_str(&format!("{indent}{flat}\n")),
    }
}

/// What follows a name: on the same line where it is one value, otherwise on lines below.
fn below(value: &Value, depth: usize, text: &mut String) {
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        text.push('\n');
        block(value, depth + 1, text);
    } else {
        text.push_str(&format!(" {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn texts_stay_texts_and_nothing_is_empty_by_mistake() {
        let value = json!({
            "allowed": false,
            "nothing": [],
            "owner": null,
            "permit": [{ "mode": "no", "model": "a: b\n# c" }, "x", {}],
        });
        let told = super::text(&value);
        let expected = "allowed: false\nnothing: []\nowner: null\npermit:\n  - mode: \"no\"\n    \
                        model: \"a: b\\n# c\"\n  - \"x\"\n  - {}\n";
        assert_eq!(told, expected);
    }
}
