"""What text in each language looks like, as far as needed to recognise how names are encoded.

The letters of an alphabet are listed with the most frequent first. Of the ideographs and syllables
of China, Japan and Korea the common ones are listed; the standards' own order says which of the
others are rare. `tests/test_encodings.py` measures how well names are recognised with it.
"""

from __future__ import annotations

from typing import NamedTuple


class Alphabet(NamedTuple):
    """The letters of a language that has an alphabet, in lower case.

    Args:
        letters: Those beyond a to z, with the most frequent first.
        oem: How Windows programs for MS-DOS and most zip programs encode it.
        ansi: How other Windows programs encode it, such as Excel.
        plain: The letters from a to z, with the most frequent first.
        prior: Logarithm of how much less often it is met than the others.
        only_last: Letters that are at the end of a word only.
        never_first: Letters that no word begins with.
        never_last: Letters that no word ends with.
    """

    letters: str
    oem: tuple[str, ...]
    ansi: tuple[str, ...]
    plain: str = ""
    prior: float = 0.0
    only_last: str = ""
    never_first: str = ""
    never_last: str = ""


_WEST = ("cp850", "cp437"), ("cp1252", "mac_roman")
_CENTRE = ("cp852",), ("cp1250",)
_BALTIC = ("cp775",), ("cp1257",)

# Written in Latin letters: most letters are from a to z, and the others show the language.
LATIN = {
    "German": Alphabet("üäöß", *_WEST, "enisratdhulcgmobwfkzvpjyxq"),
    "French": Alphabet("éèàêçîâôûïëùœ", *_WEST, "esaitnrulodcpmvqfbghjxyzwk"),
    "Spanish": Alphabet("óáíñéúü", *_WEST, "eaosnrildtucmpbhqyvgfjzxkw"),
    "Portuguese": Alphabet("ãçáéíóõêâúôà", *_WEST, "aeosrindmutclpvghqbfzjxkwy"),
    "Italian": Alphabet("àèùìòé", *_WEST, "eaionlrtscdupmvghfbqzjkwxy", only_last="àèùìò"),
    "Swedish, Finnish": Alphabet("äåöé", *_WEST, "eanrtsildomkgvhfupbcyjxwzq"),
    "Danish, Norwegian": Alphabet("åøæé", *_WEST, "enrtdaisolgkmvfubhpjyczxwq"),
    "Dutch, English": Alphabet("éëïèöü", *_WEST, "etanirodshlvgmucwkpbfjzyxq", -1.0),
    "Icelandic": Alphabet("áíðöþéúóýæ", *_WEST, "anrieustlgdhmkfovjbpyxczwq", -4.0),
    "Polish": Alphabet("łóążęśćńź", *_CENTRE, "aioezrnwsctkydpmujlgbhfvqx"),
    "Czech, Slovak": Alphabet("íáýéčěřšžůúťňóďľôäŕĺ", *_CENTRE, "oeantsilvrkdpmuhzjcbyfgxwq"),
    "Hungarian": Alphabet("áéöőóíüűú", *_CENTRE, "eatlnskomzrigdybvhufpjcxwq"),
    "Romanian": Alphabet("ăţâîşșț", *_CENTRE, "eiartnulcosdpmvfgbzhxjkyqw"),
    "Croatian, Slovene": Alphabet("čšžćđ", *_CENTRE, "aieonrsjtuldkvmpgzbchfyqxw"),
    "Turkish": Alphabet("ıüşöçğâ", ("cp857",), ("cp1254",), "aeinrlkdmutsybozvghpcfjxwq"),
    "Estonian": Alphabet("äõüöšž", *_BALTIC, "aiestlunkomdrvpgjhbfcyxzqw", -1.0),
    "Latvian, Lithuanian": Alphabet(
        "āīēūšėžčņģķļųįęą", *_BALTIC, "iasteurnokmlvdpgjbzcyfhwxq", -1.0
    ),
}

_CYRILLIC = ("cp866",), ("cp1251", "koi8_r", "mac_cyrillic")
# Written in other letters: a name has few from a to z.
OTHER = {
    "Russian": Alphabet("оаеинтрслвкпмудяыьзгбчйжхшюцщэфъё", *_CYRILLIC, never_first="ъьы"),
    "Ukrainian, Belarusian": Alphabet(
        "аоиніктрвелусдмпяьзбгчшхйжїцєюфщґўэыё",
        ("cp1125", "cp866"),
        ("cp1251", "koi8_u"),
        prior=-1.0,
        never_first="ьы",
    ),
    "Bulgarian": Alphabet(
        "аоиетнврлкспдмзбуъяцгчйхшщжюфь", *_CYRILLIC, prior=-1.0, never_first="ьы", never_last="ъ"
    ),
    "Serbian, Macedonian": Alphabet(
        "аоиентрсвукмлдпбзгјчцшњљжћхђфџѓѕќ", ("cp855",), ("cp1251",), prior=-2.0
    ),
    "Greek": Alphabet(
        "αοιετσνρκπμλςηυίόάέήώθγδβχωφξζψύϊϋΐΰ",
        ("cp737", "cp869"),
        ("cp1253",),
        only_last="ς",
        never_first="ϊϋΐΰ",
        never_last="σκπμλθγδβχφ",
    ),
    "Hebrew": Alphabet(
        "יוהלאמרבתשנחדםפקעכטגסצזךןףץ", ("cp862",), ("cp1255",), only_last="םןףץך", never_last="מנצכ"
    ),
    "Arabic": Alphabet(
        "اليمنرتوبدسعةفحقكجهشطأخصىزضئذإغثءظؤآ",
        ("cp720",),
        ("cp1256",),
        only_last="ةى",
        never_first="ةىءئؤ",
    ),
    "Thai": Alphabet(
        "านกรมอลดงเสวทยบปตพชไคแจหขโผซฟถใศภธณฉษฝฐญฎฏฑฒฆฬฮฤำะัิีึืุู็่้๊๋์ๆฯ", ("cp874",), ("cp874",)
    ),
}

VOWELS = frozenset("аеиоуыэюяёіїєαεηιουωάέήίόύώϊϋΐΰ")

# The ideographs that names of things are written with, in China, Taiwan and Japan.
HAN = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过"
    "发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本"
    "前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很"
    "最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度"
    "门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电"
    "数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马"
    "科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万"
    "取拉格望觉术领共确传师观清今切院让识候带导争运笔红黄蓝绿紫黑灰橙粉棕银青"
    "猫狗犬鸡鸭鹅鸟鱼虾蟹虫蜂蝶蚂蚁蜘蛛蛇龟蛙兔鼠牛羊猪驴骡骆驼鹿狼狐狸虎豹狮熊猴猩象鲸鲨豚鹰鸽雀燕"
    "鹤鹦鹉孔雀企鹅蝴蜻蜓蚊蝇蚕蚯蚓蜗贝螺乌章鲤鲫鳄蜥蜴蝎恐龙凤凰蝙蝠狍獾貂鼬刺猬松袋考拉"
    "花草树木叶根茎枝果实种子梅兰竹菊荷莲玫瑰牡丹桃李杏梨苹柿橘柑橙柠檬柚葡萄莓蕉菠萝芒榴枣瓜"
    "茄椒菜葱蒜姜韭芹萝卜薯豆玉米麦稻谷粮棉麻茶桑柳杨松柏枫桂樟槐榕盆栽仙掌蘑菇菌苔藻蕨百合"
    "饭面包饼糕糖果汁酒奶油盐酱醋汤粥粽饺馒肉肠蛋排骨火锅寿司酸甜苦辣咸香"
    "车船飞机轮轿卡客货公交自行摩托火箭艇舰桥路灯塔楼房屋墙窗桌椅床柜沙发镜钟表杯碗盘盆瓶罐筷勺刀叉"
    "相照电脑视冰箱洗衣空调风扇手机键盘鼠标耳话笔书纸包帽鞋袜衣裤裙衫套袍领带伞球拍棒琴鼓笛"
    "男女老婴孩童人脸头发眼睛鼻嘴耳朵手脚腿心肝肺胃脑血骨皮毛牙"
    "正常异破损裂缺陷划痕污脏锈斑点病毒霉枯萎健康炎症癌瘤肿良恶阳阴"
    "图片像照件夹新建文档副本复制训练测试验证集标签类别样本数据分割预"
    "圆方三角形直线曲面长宽厚薄轻重硬软冷热干湿晴雨雪云雾雷电沙尘霾"
    "垃圾可回收有害厨余玻璃塑料金属纸布陶瓷橡胶铁铜铝钢石土泥砖"
    "蚂蟻動鳥魚蟲馬龍龜貓豬雞鴨鵝獅驢鯊鯨鷹鴿鶴鸚鵡雀燕企貝烏葉樹蘭蓮蘋檸檬葡萄鳳蘿蔔薯豆麥穀茶楊楓"
    "飯麵餅湯餃饅腸鍋壽蛋車飛機輪轎貨橋燈樓牆窗鏡鐘錶盤罐電腦視箱調風鍵滑鼠話筆書紙鞋襪褲裙帶傘"
    "臉髮齒肝腦異損裂劃鏽點黴瘋癌腫圖檔夾複製訓練測試驗證標籤類別樣數據圓線寬雲霧雷"
    "個們來為國說時會對學發後裡過種經現當動還進開從實軍無與長將兩間問應頭體見產話內門員處氣題總"
    "報結務場計統區隊決馬書則達強難權張規萬覺術領確傳師觀讓識帶導爭運紅黃藍綠銀"
    "鳥犬魚馬桜梅桃柿栗苺蜜柑葉芽鉢植菌茸虫蝉蛍蝶蜻蛉蜂蟻蛙亀鮫鯨鯛鮪鮭蛸烏賊海老蟹貝鶏鴨鷲鷹雀鳩鴉燕"
    "飯麺寿司刺身焼肉鍋汁茶碗箸皿丼弁当味噌豆腐納卵揚煮炒蒸餅団子菓煎酒"
    "電車駅自転動船飛行機橋道路信号標識看板表札椅子机棚窓扉鍵傘靴帽服眼鏡時計電話携帯写真画像図"
    "学校病院銀行公園神社寺城家庭部屋台所風呂便所階段庭池川湖海山森林空雲雨雪雷虹星月太陽"
    "正常異良品不欠陥傷汚割気泡検査訓練検証分類対象種類名前新規書類写"
    "東西南北春夏秋冬朝昼夜今週曜年男女子供赤青黄緑白黒茶紫灰色桃橙"
    "工具螺丝钉锤钳锯斧剪刀针线锁钥匙门铃梯绳网袋盒箱桶篮筐架台座"
    "猿猪鹿狸兎栗鼠象獅虎豹熊狼狐羊山羊牛豚馬鶏鼠"
)

# The syllables that most Korean names are made of.
HANGUL = frozenset(
    "가각간갈감갑강갖개객갯거건걸검겁게겨격견결경계고곡곤골곰공과관광괴교구국군굴궁권귀규균귤그극근글금급"
    "기긴길김깃까깨꺼껍꼬꽃꾸꿀꿩끼나낙난날남납낫낭내냉너널네녀노녹논농뇌누눈뉴느늑는늘능니님다단달담닭답당대"
    "댕더덕덩데도독돈돌동돼되두둑둘드득들등디따딸땅때떡또똥뚜뚱뛰라락란람랑래랙랜램량러럭런레렉려력련렬령로록"
    "론롤료룡루류륙률르른를름리린릴림립링마막만말맛망매맥맨머먹멀메면멸명모목몰못몽무문물뮤미민밀밍바박밖반발"
    "밤밥방배백뱀뱅버번벌범법베벤벽변별병보복볶본볼봄봉부북분불붕붓브블비빈빌빗빙빵빼뽕사삭산살삼삽상새색샌생샤"
    "서석선설섬성세센셔소속손솔송쇠수순술숭숲스슬습승시식신실심십싱싸쌀쌍썰쓰씨씽아악안알암압앙앞애액야약양어억"
    "언얼엄업엉에엔엘여역연열염엽영예오옥온올옷와완왕외요용우욱운울움원월웨위유육율은을음응의이익인일임입잎자작"
    "잔잘잠잡장재잭쟁저적전절점접정제조족존종좋좌주죽준줄중쥐즈즙증지직진질집짜짝째쪽찌차착찬찰참창채책처척천철"
    "첨청체초촉촌총최추축출충췌취츠치칙친칠침카칸칼캐캔커컨컴컵케켓코콘콜콩쿠퀴크클키킹타탁탄탈탕태택터턱텀테텔"
    "토톤톱통퇴투튜트특튤티틱팀파판팔패팬팽퍼펌페펜펭편평폐포폭폰표푸풀품풍프플피필하학한할함합항해핵햄행향허험"
    "헬현혈형혜호혹홀홍화확환활황회횡효후훈휴흑흡흥희히흰"
)
