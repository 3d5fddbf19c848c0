//! What duplicates are judged by.

use usher_proto::account::v1::{Date, DuplicateRules, Organization, OrganizationSettings};

use super::{Service, requests::update_organization, until};

/// A date of birth.
pub const BIRTH_DATE: Date = Date {
    year: 1980,
    month: 5,
    day: 17,
};

impl Service {
    /// Sets which candidates the front desk of an organization is shown: those whose probability is at least
    /// `threshold`, if `expected_share` of all entries are duplicates.
    pub async fn set_front_desk_duplicates(
        &mut self,
        organization_id: &str,
        threshold: f64,
        expected_share: f64,
    ) {
        let new = Organization {
            settings: Some(OrganizationSettings {
                front_desk_duplicates: Some(DuplicateRules {
                    threshold: Some(threshold),
                    expected_share: Some(expected_share),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let path = "settings.front_desk_duplicates";
        let request = update_organization(organization_id, &[path], new);
        self.update_organization(request).await;
    }

    /// Waits until the names of an organization are counted, which has so many accounts.
    pub async fn until_counted(&self, organization_id: &str, accounts: i64) {
        let mut admin = self.admin().await;
        until("counted", async || {
            let query = "SELECT accounts FROM name_counts WHERE organization_id = $1::uuid";
            let counted = sqlx::query_scalar(query).bind(organization_id);
            counted.fetch_optional(&mut admin).await.unwrap() == Some(accounts)
        })
        .await;
    }
}
