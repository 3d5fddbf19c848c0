"""Five hundred clients as staff would enter them: many scripts, accents, apostrophes, IDN addresses.

The same seed gives the same clients, so the numbers that a run has to end with are known beforehand.
"""

import random
import unicodedata
from dataclasses import dataclass, field
from enum import Enum

SEED = 20_240_229
PER_POOL = 20
WITHOUT_EMAIL_EVERY = 11
EMAIL_DUPLICATES = 30
NAME_DUPLICATES = 30

# Given names, family names, and a mail domain of the same place.
POOLS = [
    ("Aoife|Declan|Siobhán|Gráinne|Margaret|Thomas|Oscar|Fiachra",
     "O'Brien|O’Sullivan|Fitzgerald|MacCarthy|Byrne|Smith-Jones|Walsh|D'Arcy", "baile.example"),
    ("Zoé|Jérôme|François|Anaïs|Loïc|Chloé|Benoît|Maëlys",
     "de La Fontaine|L'Hermitte|Lefèvre|Gauthier|N'Diaye|Saint-Exupéry|Duchêne|Œuvrard", "société.example"),
    ("Jürgen|Käthe|Björn|Annegret|Götz|Ulrike|Klaus-Peter|Sibylle",
     "Müller|Weiß|von der Heide|Schönfelder|Großmann|Krüger|Zöllner|Bäcker", "müller-söhne.example"),
    ("José María|Begoña|Íñigo|Núria|Jordi|Lucía|Álvaro|Concepción",
     "Núñez|García Márquez|Ibáñez|Puigdemont|Echeverría|Zúñiga|Muñoz y Soto|Peña", "señor.example"),
    ("João|Conceição|Inês|Luís|Gonçalo|Tânia|Estêvão|Filipa",
     "Gonçalves|da Silva|Simões|Araújo|Guimarães|Falcão|Brandão|Xavier", "ação.example"),
    ("Łukasz|Małgorzata|Paweł|Żaneta|Grzegorz|Agnieszka|Świętosława|Zbigniew",
     "Wójcik|Łącki|Żurawski|Dąbrowska|Szczepański|Kościuszko|Mickiewicz|Brzęczyszczykiewicz", "żółw.example"),
    ("Jiří|Květa|Ľubomír|Zdeněk|Ágnes|Győző|Božena|Ödön",
     "Dvořák|Růžička|Šťastný|Černý|Erdős|Kovácsová|Szőke|Hlaváček", "růže.example"),
    ("Åse|Søren|Þórdís|Ægir|Øystein|Guðrún|Håkan|Väinö",
     "Ångström|Sørensen|Jónsdóttir|Mäkelä|Bjørnstad|Hagström|Lindqvist|Østergaard", "smørrebrød.example"),
    ("Thị Hương|Văn Đức|Quỳnh|Tuấn|Bảo Ngọc|Phượng|Khánh|Xuân",
     "Nguyễn|Trần|Phạm|Huỳnh|Võ|Đặng|Bùi|Lý", "thư.example"),
    ("İbrahim|Şebnem|Çağla|Oğuz|Gülşen|Işıl|Ümit|Barış",
     "Yılmaz|Öztürk|Çelik|Şahin|Kılıç|Aydın|Doğan|Güneş", "çiçek.example"),
    ("Анна|Дмитрий|Наталья|Игорь|Светлана|Фёдор|Юлия|Григорий",
     "Иванова|Соколов|Щербакова|Кузнецов|Ёлкина|Цветаев|Хрущёв|Михайловский", "почта.example"),
    ("Оксана|Євген|Олександр|Ярослава|Тарас|Соломія|Богдан|Любов",
     "Шевченко|Коваленко|Бондаренко|Гриценко|Лук'янчук|Мар'яненко|Їжакевич|Ґудзь", "пошта.example"),
    ("Γιώργος|Ελένη|Κωνσταντίνος|Αθηνά|Δημήτρης|Ειρήνη|Παναγιώτης|Φωτεινή",
     "Παπαδόπουλος|Οικονόμου|Αγγελοπούλου|Χατζηδάκης|Νικολαΐδης|Σταθοπούλου|Βασιλείου|Καραμανλής",
     "ταχυδρομείο.example"),
    ("محمد|فاطمة|عبد الرحمن|خديجة|يوسف|زينب|طارق|مريم",
     "الحسيني|بن علي|الزهراني|المصري|قرشي|البغدادي|حداد|شريف", "بريد.example"),
    ("דוד|רחל|יצחק|מרים|אברהם|שרה|נועם|תמר",
     "כהן|לוי|בן־גוריון|פרידמן|אשכנזי|מזרחי|שפירא|גולדברג", "דואר.example"),
    ("伟|秀英|建国|晓明|丽娜|子涵|志强|雨桐",
     "孙|李|欧阳|司马|诸葛|陈|黄|赵", "邮件.example"),
    ("太郎|花子|さくら|ケンジ|陽菜|健一|美咲|翔太",
     "田中|渡邉|佐々木|髙橋|小野寺|山本|中村|鈴木", "メール.example"),
    ("민준|서연|지훈|하은|영수|수빈|동현|은지",
     "김|이|박|최|남궁|황보|정|강", "우편.example"),
    ("अर्जुन|प्रिया|सुनीता|விஜய்|கமலா|राहुल|மீனாட்சி|लक्ष्मी",
     "शर्मा|गुप्ता|चट्टोपाध्याय|अय्यर|मिश्रा|पटेल|ராமசாமி|கிருஷ்ணன்", "डाक.example"),
    ("გიორგი|ნინო|Արամ|Անահիտ|አበበ|ሰላም|สมชาย|มาลี",
     "ბერიძე|კაპანაძე|Պետրոսյան|Հակոբյան|ተስፋዬ|ገብረ|ศรีสุข|วงศ์ไทย", "ფოსტა.example"),
    ("Adébáyọ̀|Ṣadé|Kaʻiulani|Ngaio|Kwabena|Ọlábísí|Tūmanako|Nālani",
     "Ògúnbíyì|Kamakawiwoʻole|Ngata|Nkrumah|Adichie|Kealoha|Te Rangi Hīroa|Okonkwo", "moana.example"),
    ("Ștefan|Ioana|Đorđe|Živka|Jānis|Agnė|Crăciun|Tomaž",
     "Țepeș|Brâncuși|Đoković|Šimić|Bērziņš|Žukauskaitė|Mănescu|Petrović", "poștă.example"),
]

LOCAL_PARTS = [
    "client.{n}", "c+usher{n}", "o'neil{n}", "{n}", "Mixed.Case{n}", "under_score-{n}", "first.last.{n}",
    "a-rather-long-local-part-that-somebody-really-has-in-use.{n:04}",
]
LOCALES = ["", "en", "fr", "fr-CA", "en-GB"]


class Outcome(Enum):
    """What the first CreateAccount for a client has to answer."""

    CREATED = "created"
    SAME_EMAIL = "EMAIL_IN_ORGANIZATION"
    SAME_NAME = "POSSIBLE_DUPLICATE"


@dataclass
class Client:
    """One client and what is known of it beforehand."""

    account: dict
    outcome: Outcome = Outcome.CREATED
    # Staff look at the warning and create the account all the same.
    insists: bool = False
    # Who it is a duplicate of.
    original: "Client | None" = field(default=None, repr=False)

    @property
    def email(self) -> str | None:
        return self.account.get("email")

    @property
    def is_created(self) -> bool:
        return self.outcome is Outcome.CREATED or self.insists

    @property
    def gets_email(self) -> bool:
        return self.is_created and self.email is not None


def everybody() -> tuple[list[Client], list[Client]]:
    """The clients that exist once, and after them the duplicates: 440 and 60."""
    chance = random.Random(SEED)
    unique = [
        client(chance, number, *name)
        for number, name in enumerate(
            (pool, index % 8, (index + index // 8 * 3) % 8) for pool in range(len(POOLS)) for index in range(PER_POOL)
        )
    ]
    for one in unique[::WITHOUT_EMAIL_EVERY]:
        del one.account["email"]
    return unique, same_email(chance, unique) + same_name(chance, unique)


def client(chance: random.Random, number: int, pool: int, given: int, family: int) -> Client:
    given_names, family_names, domain = POOLS[pool]
    account = {
        "given_name": given_names.split("|")[given],
        "family_name": family_names.split("|")[family],
        "email": f"{LOCAL_PARTS[number % len(LOCAL_PARTS)].format(n=number)}@{domain}",
        "locale": chance.choice(LOCALES),
        "plan": chance.choice(["", "starter", "pro"]),
    }
    if chance.random() < 0.5:
        year, month, day = chance.randint(1930, 2005), chance.randint(1, 12), chance.randint(1, 28)
        account["birth_date"] = {"year": year, "month": month, "day": day}
    if chance.random() < 0.5:
        account["phone"] = f"+3312{number:07}"
    if chance.random() < 0.2:
        account["members"] = [{"given_name": "Noé", "family_name": account["family_name"], "relation": "child"}]
        account["addresses"] = [{"lines": ["1, rue de l’Église"], "locality": "Nîmes", "country_code": "FR"}]
    return Client(account)


def same_email(chance: random.Random, unique: list[Client]) -> list[Client]:
    """Other people who give an address that is taken, written differently."""
    spellings = [
        str.upper,
        lambda email: email.partition("@")[0] + "@" + email.partition("@")[2].upper(),
        lambda email: email.partition("@")[0] + "@" + email.partition("@")[2].encode("idna").decode(),
        lambda email: f"  {email} ",
    ]
    # IDNA 2003 in Python's codec and today's IDNA differ in these letters.
    candidates = [one for one in unique if one.email and not set("ßς") & set(one.email)]
    duplicates = []
    for number, original in enumerate(chance.sample(candidates, EMAIL_DUPLICATES)):
        pool = number % len(POOLS)
        # A pair of names that no unique client has.
        other = client(chance, 1000 + number, pool, number // len(POOLS), (number // len(POOLS) + 7) % 8)
        other.account["email"] = spellings[number % len(spellings)](original.email)
        other.outcome, other.original = Outcome.SAME_EMAIL, original
        duplicates.append(other)
    return duplicates


def same_name(chance: random.Random, unique: list[Client]) -> list[Client]:
    """The same people once more, spelled differently and with another address. Half are insisted on."""
    duplicates = []
    for number, original in enumerate(chance.sample(unique, NAME_DUPLICATES)):
        given, family = original.account["given_name"], original.account["family_name"]
        given, family = [
            (family, given),
            (given.upper(), family.lower()),
            (f" {given}  ", family.replace("-", " ").replace("'", "’")),
            (unicodedata.normalize("NFD", given), unicodedata.normalize("NFD", family)),
            (without_marks(given), without_marks(family)),
        ][number % 5]
        account = {"given_name": given, "family_name": family, "email": f"again.{number}@twice.example"}
        duplicates.append(Client(account, Outcome.SAME_NAME, insists=number % 2 == 0, original=original))
    return duplicates


def without_marks(name: str) -> str:
    """Latin letters without their accents; other scripts unchanged, whose marks are letters."""
    if not unicodedata.name(name[0], "").startswith("LATIN"):
        return name
    return "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter))
