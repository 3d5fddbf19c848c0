use std::collections::{BTreeMap, BTreeSet};

use time::macros::datetime;

use super::translations::LOCALES;
use super::*;

fn renderer() -> Renderer {
    Renderer::new().unwrap()
}

/// Sample values with and without everything optional.
fn variants() -> [Values; 2] {
    let plain = Values::sample();
    let full = Values {
        logo_url: Some("https://portal.example.org/logo.png".to_owned()),
        color: Some("#FFD400".to_owned()),
        form_id: Some("intake".to_owned()),
        ..Values::sample()
    };
    [plain, full]
}

/// The messages of a language with the variables that each uses.
fn messages(source: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut messages = BTreeMap::<_, BTreeSet<_>>::new();
    let mut current = "";
    for line in source.lines() {
        if let Some((name, _)) = line.split_once(" =")
            && name.starts_with(|first: char| first.is_ascii_lowercase())
        {
            current = name;
            messages.entry(current).or_default();
        }
        for rest in line.split('$').skip(1) {
            let end = rest
                .find(|c: char| !c.is_ascii_lowercase() && c != '_')
                .unwrap_or(rest.len());
            messages.entry(current).or_default().insert(&rest[..end]);
        }
    }
    messages
}

#[test]
fn every_email_renders_in_every_language() {
    let renderer = renderer();
    for kind in MailKind::ALL {
        for (locale, _) in LOCALES {
            for values in variants() {
                let mail = renderer.render(kind, locale, &values).unwrap();
                assert_eq!(mail.locale, locale);
                for part in [&mail.subject, &mail.html, &mail.text] {
                    assert!(part.contains(&values.organization_name), "{part}");
                    assert!(!part.contains("{{") && !part.contains("{%"), "{part}");
                }
                assert!(mail.text.contains(&values.link));
                let html = &mail.html;
                assert_eq!(
                    html.matches(&format!("href=\"{}\"", values.link)).count(),
                    2
                );
                assert!(html.contains(&format!(">{}</a>", values.link)));
                assert!(html.contains(&format!("<html lang=\"{locale}\"")));
                assert!(html.contains(&format!("<title>{}</title>", mail.subject)));
            }
        }
    }
}

#[test]
fn an_email_loads_nothing_but_the_logo() {
    let renderer = renderer();
    for kind in MailKind::ALL {
        for (values, images) in variants().iter().zip([0, 1]) {
            let html = renderer.render(kind, "en", values).unwrap().html;
            assert_eq!(html.matches("<img").count(), images);
            assert!(!html.contains("<link") && !html.contains("url(") && !html.contains("<script"));
        }
    }
}

#[test]
fn an_image_has_a_text_and_a_form_is_announced() {
    let [plain, full] = variants();
    let with_form = renderer()
        .render(MailKind::Activation, "en", &full)
        .unwrap();
    assert!(with_form.html.contains("alt=\"Harbour Clinic\""));
    for (values, announced) in [(plain, false), (full, true)] {
        let mail = renderer()
            .render(MailKind::Activation, "en", &values)
            .unwrap();
        assert_eq!(mail.html.contains("fill in a form"), announced);
        assert_eq!(mail.text.contains("fill in a form"), announced);
    }
}

#[test]
fn languages_hold_the_same_messages_with_the_same_variables() {
    let expected = messages(LOCALES[0].1);
    for (locale, source) in LOCALES {
        assert_eq!(messages(source), expected, "{locale}");
    }
}

#[test]
fn there_are_texts_in_every_language() {
    assert_eq!(
        LOCALES.map(|(locale, _)| locale),
        usher_runtime::languages::LANGUAGES
    );
}

#[test]
fn every_message_formats_in_every_language_and_is_used() {
    let renderer = renderer();
    let sources: String = MailKind::ALL
        .into_iter()
        .flat_map(|kind| {
            let Sources {
                subject,
                mjml,
                text,
            } = Sources::of(kind);
            [subject, mjml, text]
        })
        .chain(MJML_PARTS.into_iter().chain(TEXT_PARTS).map(|(_, s)| s))
        .chain(LOCALES.map(|(_, source)| source))
        .collect();
    for (locale, source) in LOCALES {
        let variables = Values::sample().variables(locale).unwrap();
        for message in messages(source).into_keys() {
            let template = format!("{{{{ t(\"{message}\") }}}}");
            let text = renderer
                .environment
                .render_str(&template, variables.clone())
                .unwrap();
            assert!(!text.trim().is_empty(), "{locale} {message}");
            assert!(
                sources.contains(&format!("t(\"{message}\")"))
                    || sources.contains(&format!("{{ {message} }}")),
                "{message} is not used"
            );
        }
    }
}

#[test]
fn templates_use_only_variables_that_exist() {
    let renderer = renderer();
    let mut known: BTreeSet<String> = Values::sample()
        .variables("en")
        .unwrap()
        .into_keys()
        .map(str::to_owned)
        .collect();
    known.insert("subject".to_owned());
    known.insert("t".to_owned());
    for (name, template) in renderer.environment.templates() {
        let used: BTreeSet<String> = template.undeclared_variables(false).into_iter().collect();
        assert!(used.is_subset(&known), "{name} uses {used:?}");
    }
}

#[test]
fn a_missing_variable_or_message_is_an_error() {
    let renderer = renderer();
    let mut variables = Values::sample().variables("en").unwrap();
    let fill = |template: &str, variables: &Variables| {
        renderer.environment.render_str(template, variables.clone())
    };
    assert!(fill("{{ nickname }}", &variables).is_err());
    assert!(fill("{{ t(\"no-such-message\") }}", &variables).is_err());
    assert!(fill("{{ t(\"greeting\") }}", &variables).is_ok());
    variables.remove("full_name");
    assert!(fill("{{ t(\"greeting\") }}", &variables).is_err());
}

#[test]
fn names_are_shown_as_they_are_and_never_interpreted() {
    let values = Values {
        given_name: "<script>alert(1)</script>".to_owned(),
        family_name: "O'Neil \"{{ link }}\" { $day }".to_owned(),
        organization_name: "Tom & Söhne <x@y.example>".to_owned(),
        logo_url: Some("https://example.org/a\"onerror=\"b.png".to_owned()),
        ..Values::sample()
    };
    let mail = renderer()
        .render(MailKind::Activation, "en", &values)
        .unwrap();
    assert!(!mail.html.contains("<script") && !mail.html.contains("<x@y"));
    assert!(!mail.html.contains("\"onerror"));
    assert!(mail.html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(mail.html.contains("{{ link }}") && mail.html.contains("{ $day }"));
    assert!(
        mail.html
            .contains("alt=\"Tom &amp; Söhne &lt;x@y.example&gt;\"")
    );
    assert!(
        mail.text
            .contains("<script>alert(1)</script> O'Neil \"{{ link }}\" { $day },")
    );
    assert_eq!(
        mail.subject,
        "Activate your account at Tom & Söhne <x@y.example>"
    );
}

#[test]
fn a_subject_is_one_line() {
    let values = Values {
        organization_name: "Harbour\r\nBcc: all@example.org\u{2028}\u{202e}Clinic\u{0}".to_owned(),
        ..Values::sample()
    };
    for kind in MailKind::ALL {
        let subject = renderer().render(kind, "fr", &values).unwrap().subject;
        assert!(!subject.contains(['\r', '\n', '\u{0}', '\u{2028}', '\u{202e}']));
    }
}

#[test]
fn a_name_from_right_to_left_is_isolated() {
    let values = Values {
        given_name: "שרה".to_owned(),
        family_name: "כהן".to_owned(),
        organization_name: "עמותה".to_owned(),
        ..Values::sample()
    };
    let mail = renderer()
        .render(MailKind::Activation, "en", &values)
        .unwrap();
    assert!(mail.text.contains("Hello \u{2068}שרה כהן\u{2069},"));
    assert_eq!(
        mail.subject,
        "Activate your account at \u{2068}עמותה\u{2069}"
    );
}

#[test]
fn the_expiry_is_a_date_in_utc() {
    let at = |expire_time, locale| {
        let values = Values {
            expire_time,
            ..Values::sample()
        };
        renderer()
            .render(MailKind::Activation, locale, &values)
            .unwrap()
            .text
    };
    let winter = datetime!(2026-12-15 16:30 +02:00);
    assert!(at(winter, "en").contains("until 15 December 2026 at 14:30 UTC."));
    assert!(
        at(winter, "fr").contains("jusqu’au 15\u{a0}décembre 2026 à 14\u{a0}h\u{a0}30\u{a0}UTC.")
    );
    let spring = datetime!(2027-03-01 00:05 UTC);
    assert!(at(spring, "en").contains("until 1 March 2027 at 00:05 UTC."));
    assert!(at(spring, "fr").contains("jusqu’au 1er\u{a0}mars 2027 à 00\u{a0}h\u{a0}05\u{a0}UTC."));
}

#[test]
fn french_has_non_breaking_spaces() {
    let words: String = LOCALES[1]
        .1
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    for mark in [" :", " ;", " ?", " !", " »", "« "] {
        assert!(!words.contains(mark), "ordinary space in {mark:?}");
    }
}

#[test]
fn a_locale_is_served_by_its_language() {
    for (tag, expected) in [
        ("en", Some("en")),
        ("fr-CA", Some("fr")),
        ("FR_ca", Some("fr")),
        ("de", None),
        ("fro", None),
        ("", None),
    ] {
        assert_eq!(Renderer::match_locale(tag), expected, "{tag:?}");
    }
    let mail = renderer()
        .render(MailKind::ShareRequest, "de", &Values::sample())
        .unwrap();
    assert_eq!(mail.locale, Renderer::DEFAULT_LOCALE);
}

#[test]
fn malformed_values_are_refused_by_name() {
    let refused = |values: Values| match renderer().render(MailKind::Activation, "en", &values) {
        Err(RenderError::Value { field, .. }) => field,
        _ => "accepted",
    };
    let sample = Values::sample;
    for color in ["red", "#fff", "#12345g", "#1234567", "1f4e79", "#+12345"] {
        let color = Some(color.to_owned());
        assert_eq!(refused(Values { color, ..sample() }), "color");
    }
    for link in ["javascript:alert(1)", "/activate", "https://x.example/a b"] {
        let link = link.to_owned();
        assert_eq!(refused(Values { link, ..sample() }), "link");
    }
    let logo_url = Some("data:image/png;base64,".to_owned());
    assert_eq!(
        refused(Values {
            logo_url,
            ..sample()
        }),
        "logo_url"
    );
}
