//! Which names are found, whatever way they are written, and which are not.

use rstest::rstest;
use usher_proto::account::v1::{
    CheckDuplicatesRequest, Date, DuplicateCandidate, FieldComparison, Nearness,
};

use crate::support::{BIRTH_DATE, Service, check_names, new_account};

type Name = (&'static str, &'static str);

/// What is found for `asked` where `stored` is the only account.
async fn found(stored: Name, asked: Name, birth_date: Option<Date>) -> Option<DuplicateCandidate> {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = new_account(&organization, stored.0, stored.1, "");
    request.account.as_mut().unwrap().birth_date = birth_date;
    service.create(request).await;
    let check = CheckDuplicatesRequest {
        birth_date,
        ..check_names(&organization, asked.0, asked.1)
    };
    service.check(check).await.candidates.pop()
}

#[rstest]
#[case(("ΓΙΩΡΓΟΣ", "ΠΑΠΑΔΑΚΗΣ"), ("Γιώργος", "Παπαδάκης"))]
#[case(("مُحَمَّد", "عَلِيّ"), ("محمد", "علي"))]
#[case(("דָּוִד", "כֹּהֵן"), ("דוד", "כהן"))]
#[case(("Jürgen", "Müller"), ("Juergen", "Mueller"))]
#[case(("Jürgen", "Grün Kohl Böhm"), ("Juergen", "Gruen Kohl Böhm"))]
#[case(("Schönhueber", "Müller-Lüdenscheidt"), ("Schoenhüber", "Muller-Luedenscheidt"))]
#[case(("K. A.", "Smith"), ("K A", "Smith"))]
#[case(("Sølvi", "Næss"), ("Soelvi", "Naess"))]
#[case(("Keʻala", "Kaʻahumanu"), ("Keala", "Kaahumanu"))]
#[case(("José María", "García-López"), ("GARCIA LOPEZ", "Jose\u{200D}maria"))]
#[tokio::test]
async fn equal_names_are_found_in_any_spelling(#[case] stored: Name, #[case] asked: Name) {
    let candidate = found(stored, asked, None).await.expect("a candidate");
    assert_eq!(candidate.given_name(), FieldComparison::Agrees);
    assert_eq!(candidate.family_name(), FieldComparison::Agrees);
    let evidence = candidate.evidence.unwrap();
    assert_eq!(evidence.names_swapped, asked.0.starts_with("GARCIA"));
    let given = evidence.given_name.unwrap();
    assert_eq!(given.nearness(), Nearness::Equal);
    assert!(given.weight > 3.0, "{given:?}");
}

#[rstest]
#[case(("Robert", "Downey"), ("Robert", "Downey Jr."))]
#[case(("Robert", "Downey"), ("Robert Downey", "Jr."))]
#[case(("João", "Silva Neto"), ("João Silva", "Neto"))]
#[case(("Dr Anna", "Rossi"), ("Dr", "Anna Rossi"))]
#[case(("Hans", "Müller"), ("Johannes", "Mueller"))]
#[case(("Anna Maria", "Rossi"), ("Anna", "Maria Rossi"))]
#[case(("Rajesh", "Kumar"), ("Raj", "Kumar"))]
#[case(("José", "Morales"), ("Pepe", "Morales"))]
#[case(("Johannes", "Weber"), ("Hans", "Weber"))]
#[case(("Alexander", "Petrov"), ("Sasha", "Petrov"))]
#[case(("Katarzyna", "Lewandowska"), ("Katarzyan", "Lewandowska"))]
#[case(("Katarzyna", "Lewandowska"), ("Lewandowska", "Katarzyna"))]
#[tokio::test]
async fn names_in_another_form_are_offered(#[case] stored: Name, #[case] asked: Name) {
    for (stored, asked) in [(stored, asked), (asked, stored)] {
        let candidate = found(stored, asked, None).await;
        assert!(candidate.is_some(), "{stored:?} for {asked:?}");
    }
}

#[rstest]
#[case(("María", "García López"), ("María", "García"))]
#[case(("María", "García López"), ("María", "López"))]
#[case(("Katarzyna", "Lewandowska"), ("Katarzzna", "Lewandowka"))]
#[case(("Katarzyna", "Lewandowska"), ("Lewandowka", "Katarzyna"))]
#[case(("Katarzyna", "Lewandowska"), ("Katarzyna", "Nowak"))]
#[tokio::test]
async fn names_that_differ_more_are_offered_with_the_birth_date(
    #[case] stored: Name,
    #[case] asked: Name,
) {
    let candidate = found(stored, asked, Some(BIRTH_DATE)).await;
    let candidate = candidate.expect("a candidate");
    assert_eq!(candidate.birth_date(), FieldComparison::Agrees);
    let birth_date = candidate.evidence.unwrap().birth_date.unwrap();
    assert_eq!(birth_date.nearness(), Nearness::Equal);
    assert!(birth_date.weight > 10.0, "{birth_date:?}");
    assert_eq!(birth_date.share, None);
}

#[rstest]
#[tokio::test]
async fn a_filler_never_agrees(
    #[values("-", "N / A", "N.N.", "Unknown Unknown", "sin nombre")] filler: &'static str,
) {
    assert_eq!(
        found(("Madonna", filler), ("Bjork", filler), None).await,
        None
    );
    let candidate = found(("Madonna", filler), ("Madonna", filler), None).await;
    let candidate = candidate.expect("the same given name");
    assert_eq!(candidate.given_name(), FieldComparison::Agrees);
    assert_eq!(candidate.family_name(), FieldComparison::Missing);
    let evidence = candidate.evidence.unwrap();
    let family = evidence.family_name.unwrap();
    assert_eq!(family.nearness(), Nearness::Missing);
    assert_eq!(family.weight.to_bits(), 0);
}

#[rstest]
#[case(("Katarzyna", "Lewandowska"), ("Robert", "Johnson"))]
#[case(("Katarzyna", "Lewandowska"), ("Katarzyna", "Johnson"))]
#[case(("K. A.", "N. A."), ("K. A.", "N. A."))]
#[tokio::test]
async fn others_are_not_offered(#[case] stored: Name, #[case] asked: Name) {
    assert_eq!(found(stored, asked, None).await, None);
}
