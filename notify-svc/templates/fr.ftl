# Words of the emails in French. Every message may use the variables that `Values::variables` in
# src/render/values.rs names. `en.ftl` holds the same messages. The spaces before « : », « ; », « ? »
# and inside guillemets are non-breaking (U+00A0); a test looks for ordinary ones.

# Shared

greeting = Bonjour { $full_name },
colon = {"\u00A0"}:

expire-time = { $day ->
    [1] 1er
   *[other] { $day }
} { $month ->
    [1] janvier
    [2] février
    [3] mars
    [4] avril
    [5] mai
    [6] juin
    [7] juillet
    [8] août
    [9] septembre
    [10] octobre
    [11] novembre
   *[12] décembre
} { $year } à { $hour } h { $minute } UTC
link-expiry = Le lien fonctionne une seule fois, jusqu’au { expire-time }.
link-fallback = Si le bouton ne fonctionne pas, copiez cette adresse dans votre navigateur :

footer-safety = Nous ne demandons jamais de mot de passe par e-mail. En cas de doute, ne suivez pas le lien : renseignez-vous auprès de { $organization_name } par un moyen que vous connaissez déjà.
footer-sender = Envoyé pour le compte de { $organization_name }.

# Activation

activation-subject = Activez votre compte chez { $organization_name }
activation-preheader = Choisissez un mot de passe, et le compte préparé par { $organization_name } est à vous.
activation-heading = Votre compte est prêt
activation-request = { $organization_name } a préparé un compte pour vous. Choisissez un mot de passe pour l’activer ; il sera dès lors à vous.
activation-form = { $organization_name } vous invite aussi à remplir un formulaire. Il s’ouvrira une fois le mot de passe choisi.
activation-button = Choisir un mot de passe
activation-reason = Vous recevez cet e-mail parce que { $organization_name } a saisi votre adresse pour ce compte. Si vous ne l’attendiez pas, ne faites rien : sans mot de passe, le compte ne peut pas être utilisé, et le lien expirera.

# Share request

share-request-subject = { $organization_name } vous demande de partager vos informations
share-request-preheader = Rien n’est partagé sans votre accord. Consultez la demande, puis acceptez ou refusez.
share-request-heading = { $organization_name } vous demande l’accès à vos informations
share-request-request = Vous avez déjà un accès avec cette adresse e-mail. { $organization_name } souhaite utiliser les informations que vous y conservez, pour vous éviter de les saisir à nouveau.
share-request-scope = Si vous acceptez, { $organization_name } pourra lire les membres de votre foyer, vos adresses et vos contacts. Vous pourrez y mettre fin à tout moment. Rien n’est partagé sans votre accord.
share-request-button = Voir la demande
share-request-reason = Vous recevez cet e-mail parce que { $organization_name } a saisi votre adresse. Si vous ne l’attendiez pas, ne faites rien : rien ne sera partagé, et le lien expirera.
