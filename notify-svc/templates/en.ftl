# Words of the emails in English. Every message may use the variables that `Values::variables` in
# src/render/values.rs names. `fr.ftl` holds the same messages.

# Shared

greeting = Hello { $full_name },
colon = :

expire-time = { $day } { $month ->
    [1] January
    [2] February
    [3] March
    [4] April
    [5] May
    [6] June
    [7] July
    [8] August
    [9] September
    [10] October
    [11] November
   *[12] December
} { $year } at { $hour }:{ $minute } UTC
link-expiry = The link works once, and until { expire-time }.
link-fallback = If the button does not work, copy this address into your browser:

footer-safety = We never ask for a password by email. If you are in doubt, do not follow the link: ask { $organization_name } in a way that you know already.
footer-sender = Sent on behalf of { $organization_name }.

# Activation

activation-subject = Activate your account at { $organization_name }
activation-preheader = Choose a password, and the account that { $organization_name } has prepared is yours.
activation-heading = Your account is ready
activation-request = { $organization_name } has prepared an account for you. Choose a password to activate it; from then on it is yours.
activation-form = { $organization_name } also asks you to fill in a form. It opens after you have chosen your password.
activation-button = Choose a password
activation-reason = You receive this email because { $organization_name } entered your address for this account. If you did not expect it, do nothing: the account cannot be used without a password, and the link expires.

# Share request

share-request-subject = { $organization_name } asks you to share your information
share-request-preheader = Nothing is shared unless you agree. See what is asked, then accept or decline.
share-request-heading = May { $organization_name } see your information?
share-request-request = You already have a login with this email address. { $organization_name } would like to use the information that you keep there, so that you need not enter it again.
share-request-scope = If you agree, { $organization_name } can read the members of your household, your addresses and your contacts. You can end this at any time. Nothing is shared unless you agree.
share-request-button = See the request
share-request-reason = You receive this email because { $organization_name } entered your address. If you did not expect it, do nothing: nothing is shared, and the link expires.
