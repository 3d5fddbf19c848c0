//! Writes every built-in email in every language to a folder, to be looked at in a browser:
//! `cargo run -p notify-svc --example render_mails -- FOLDER`. `LOGO_URL` names an image for those that show one.

use std::path::PathBuf;

use notify_svc::{
    domain::MailKind,
    render::{Renderer, Values},
};

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    std::fs::create_dir_all(&folder)?;
    let renderer = Renderer::new()?;
    for kind in MailKind::ALL {
        for locale in ["en", "fr"] {
            for (name, values) in looks() {
                let mail = renderer.render(kind, locale, &values)?;
                let stem = format!("{}-{locale}-{name}", kind.as_str().to_lowercase());
                std::fs::write(folder.join(format!("{stem}.html")), mail.html)?;
                std::fs::write(folder.join(format!("{stem}.txt")), mail.text)?;
            }
        }
    }
    Ok(())
}

/// Organizations and recipients that put the layout to the test.
fn looks() -> [(&'static str, Values); 4] {
    let link = format!(
        "https://portal.example.org/activate?token={}",
        "Zk3x9Qv0".repeat(5)
    );
    let sample = Values {
        link,
        ..Values::sample()
    };
    [
        ("plain", sample.clone()),
        (
            "light",
            Values {
                color: Some("#ffd400".to_owned()),
                logo_url: std::env::var("LOGO_URL").ok(),
                form_id: Some("intake".to_owned()),
                ..sample.clone()
            },
        ),
        (
            "long",
            Values {
                given_name: "Maximiliana-Alexandrina".to_owned(),
                family_name: "Wolfeschlegelsteinhausenbergerdorff".to_owned(),
                organization_name:
                    "Zentrum für interdisziplinäre Physiotherapie und Rehabilitation".to_owned(),
                color: Some("#7a1f3d".to_owned()),
                ..sample.clone()
            },
        ),
        (
            "rtl",
            Values {
                given_name: "שרה".to_owned(),
                family_name: "כהן".to_owned(),
                organization_name: "מרפאת הנמל".to_owned(),
                color: Some("#0b6e4f".to_owned()),
                ..sample
            },
        ),
    ]
}
