//! Birth dates.

use time::{Date, Month};

/// Why a date was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BirthDateError {
    /// No such day in the calendar.
    #[error("no such date; year, month and day are all required")]
    NotADate,
    /// Before 1850: earlier than any living person was born.
    #[error("before the year 1850")]
    TooEarly,
    /// After today.
    #[error("in the future")]
    InFuture,
}

/// A date from its parts.
///
/// # Errors
/// If there is no such day, or it is before 1850.
pub fn from_parts(year: i32, month: i32, day: i32) -> Result<Date, BirthDateError> {
    let date = || {
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()
    };
    match date() {
        None => Err(BirthDateError::NotADate),
        Some(date) if date.year() < 1850 => Err(BirthDateError::TooEarly),
        Some(date) => Ok(date),
    }
}

/// Age in whole years on `today`. Whoever was born on 29 February comes of age on 1 March of a common year.
///
/// # Errors
/// If the birth date is after `today`.
pub fn age(birth_date: Date, today: Date) -> Result<u32, BirthDateError> {
    if birth_date > today {
        return Err(BirthDateError::InFuture);
    }
    let had_birthday =
        (u8::from(today.month()), today.day()) >= (u8::from(birth_date.month()), birth_date.day());
    let years = today.year() - birth_date.year() - i32::from(!had_birthday);
    u32::try_from(years).map_err(|_| BirthDateError::InFuture)
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn an_age_grows_on_the_birthday() {
        let born = date!(2008 - 02 - 29);
        assert_eq!(age(born, date!(2026 - 02 - 28)), Ok(17));
        assert_eq!(age(born, date!(2026 - 03 - 01)), Ok(18));
        assert_eq!(
            age(born, date!(2008 - 02 - 28)),
            Err(BirthDateError::InFuture)
        );
        assert_eq!(age(born, born), Ok(0));
    }

    #[test]
    fn impossible_dates_are_refused() {
        assert_eq!(from_parts(2023, 2, 29), Err(BirthDateError::NotADate));
        assert_eq!(from_parts(2023, 0, 1), Err(BirthDateError::NotADate));
        assert_eq!(from_parts(i32::MAX, 1, 1), Err(BirthDateError::NotADate));
        assert_eq!(from_parts(1066, 10, 14), Err(BirthDateError::TooEarly));
    }
}
