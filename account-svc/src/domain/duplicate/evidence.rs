//! How birth date, phone and email of two entries compare, and how much that speaks for one person.

use time::{Date, Month};

use super::{FieldMatch, Nearness};

/// How near two values are, and how much that speaks for one person.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    pub nearness: Nearness,
    /// How much likelier it is for one person than for two.
    pub ratio: f64,
}

impl Evidence {
    /// As it is reported; of a name, with the share of people whose name is written so.
    pub fn reported(self, share: Option<f64>) -> FieldMatch {
        FieldMatch {
            nearness: self.nearness,
            weight: self.ratio.log2(),
            share,
        }
    }
}

/// Birth dates that people have: the chance that two agree is one in these.
const BIRTH_DATES: f64 = 25_000.0;
/// The same for the first of January, which stands for dates that are not known.
const FIRSTS_OF_JANUARY: f64 = 2_500.0;

/// Dates that differ in one digit of the eight.
const ONE_DIGIT_AWAY: f64 = 40.0;
/// Dates that agree in two of day, month and year.
const TWO_PARTS_AWAY: f64 = 60.0;

/// How likely the same person's birth date is written equally, with day and month swapped, with one digit mistaken,
/// with one part mistaken, or as any other.
const EQUAL: f64 = 0.93;
const DAY_MONTH_SWAPPED: f64 = 0.008;
const ONE_DIGIT: f64 = 0.022;
const TWO_PARTS: f64 = 0.01;
const OTHER: f64 = 0.011;

/// Likelihood ratios of a phone: families share one, and people change it.
const PHONE_AGREES: f64 = 150.0;
const PHONE_DIFFERS: f64 = 0.6;
/// Likelihood ratios of an email.
const EMAIL_AGREES: f64 = 300.0;
const EMAIL_DIFFERS: f64 = 0.7;

/// Compares two birth dates.
pub(super) fn birth_date(one: Option<Date>, other: Option<Date>) -> Evidence {
    let (Some(one), Some(other)) = (one, other) else {
        return evidence(Nearness::Missing, 1.0);
    };
    if one == other {
        let is_first_of_january = one.month() == Month::January && one.day() == 1;
        let dates = if is_first_of_january {
            FIRSTS_OF_JANUARY
        } else {
            BIRTH_DATES
        };
        return evidence(Nearness::Equal, EQUAL * dates);
    }
    let parts = |date: Date| (date.year(), u8::from(date.month()), date.day());
    let ((year, month, day), (other_year, other_month, other_day)) = (parts(one), parts(other));
    if (year, month, day) == (other_year, other_day, other_month) {
        return evidence(
            Nearness::DayMonthSwapped,
            DAY_MONTH_SWAPPED * BIRTH_DATES + OTHER,
        );
    }
    if is_one_digit(digits(one), digits(other)) {
        let ratio = ONE_DIGIT * BIRTH_DATES / ONE_DIGIT_AWAY + OTHER;
        return evidence(Nearness::OneDateDigit, ratio);
    }
    let equal = [year == other_year, month == other_month, day == other_day];
    if equal.iter().filter(|&&is_equal| is_equal).count() == 2 {
        let ratio = TWO_PARTS * BIRTH_DATES / TWO_PARTS_AWAY + OTHER;
        return evidence(Nearness::TwoDateParts, ratio);
    }
    evidence(Nearness::Other, OTHER)
}

/// A date as YYYYMMDD.
fn digits(date: Date) -> [u8; 8] {
    let number = date.year().unsigned_abs() * 10_000
        + u32::from(u8::from(date.month())) * 100
        + u32::from(date.day());
    let mut rest = number;
    let mut digits = [0; 8];
    for digit in digits.iter_mut().rev() {
        *digit = u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    digits
}

/// Whether one digit differs, or two that stand side by side are swapped.
fn is_one_digit(one: [u8; 8], other: [u8; 8]) -> bool {
    let mut differing = (0..8).filter(|&at| one[at] != other[at]);
    match (differing.next(), differing.next(), differing.next()) {
        (Some(_), None, _) => true,
        (Some(at), Some(next), None) => {
            next == at + 1 && one[at] == other[next] && one[next] == other[at]
        }
        _ => false,
    }
}

/// Compares two phones.
pub(super) fn phone(one: Option<&str>, other: Option<&str>) -> Evidence {
    agreement(one, other, PHONE_AGREES, PHONE_DIFFERS)
}

/// Compares two emails in canonical form.
pub(super) fn email(one: Option<&str>, other: Option<&str>) -> Evidence {
    agreement(one, other, EMAIL_AGREES, EMAIL_DIFFERS)
}

fn evidence(nearness: Nearness, ratio: f64) -> Evidence {
    Evidence { nearness, ratio }
}

fn agreement(one: Option<&str>, other: Option<&str>, agrees: f64, differs: f64) -> Evidence {
    match (one, other) {
        (Some(one), Some(other)) if one == other => evidence(Nearness::Equal, agrees),
        (Some(_), Some(_)) => evidence(Nearness::Other, differs),
        (None, _) | (_, None) => evidence(Nearness::Missing, 1.0),
    }
}
