"""Names of classes as people give them to folders, in many languages, and how Windows encodes them.

None was used to write the tables in `towernet.data.alphabets`.
"""

# For each language: its encodings in zips and in CSVs, and names.
NAMES = {
    "Chinese": (
        ("gbk",),
        "猕猴桃 火龙果 哈密瓜 山竹 榴莲 菠菜 西兰花 芹菜 胡萝卜 土豆 藏獒 哈士奇 金毛寻回犬 贵宾犬 柯基 "
        "布偶猫 波斯猫 向日葵 郁金香 蒲公英 雏菊 满天星 水稻 小麦 早疫病 晚疫病 叶霉病 健康 红灯 绿灯 "
        "停车让行 限速六十 电池 烟头 易拉罐 塑料瓶 旧衣服 蛋壳 青花瓷 油画",
    ),
    "Taiwanese": (
        ("cp950",),
        "臺灣黑熊 石虎 藍腹鷴 帝雉 櫻花鉤吻鮭 穿山甲 梅花鹿 獼猴 白鷺鷥 螢火蟲 珍珠奶茶 滷肉飯 蚵仔煎 "
        "小籠包 臭豆腐 鳳梨酥 牛肉麵 刈包 芒果冰 擔仔麵 捷運 機車 公車 腳踏車 廟宇 夜市 瓶蓋 紙盒 鐵罐",
    ),
    "Japanese": (
        ("cp932",),
        "柴犬 秋田犬 三毛猫 ハムスター うさぎ カブトムシ クワガタ トンボ てんとう虫 メダカ 金魚 ひまわり "
        "あじさい 朝顔 チューリップ たんぽぽ もみじ すみれ ラーメン うどん おにぎり たこ焼き 天ぷら "
        "カレーライス 抹茶 りんご ぶどう 表示 能面 予約 十字 ソース 構造 噂 キズ 打痕 良品 汚れ ヒビ",
    ),
    "Korean": (
        ("cp949",),
        "진돗개 삽살개 풍산개 시바견 말티즈 푸들 샴고양이 페르시안 햄스터 다람쥐 까치 참새 비둘기 무당벌레 "
        "사슴벌레 해바라기 진달래 개나리 무궁화 민들레 비빔밥 불고기 김치찌개 떡볶이 냉면 삼겹살 잡채 순대 "
        "자동차 버스 오토바이 신호등 정상 불량 긁힘",
    ),
    "Russian": (
        ("cp866", "cp1251"),
        "подсолнух ромашка одуванчик роза тюльпан берёза дуб клён ёлка воробей синица голубь сова "
        "лиса волк медведь заяц ёж белка лось грузовик автобус мотоцикл борщ пельмени щи ватрушка "
        "Яблоко Груша Слива здоровый больной трещина ржавчина",
    ),
    "Ukrainian": (
        ("cp1125", "cp1251"),
        "соняшник ромашка кульбаба троянда горобець синиця голуб сова лисиця вовк ведмідь заєць "
        "їжак білка вантажівка автобус яблуко груша слива пшениця ячмінь жито",
    ),
    "Bulgarian": (
        ("cp866", "cp1251"),
        "слънчоглед лайка глухарче роза лале бреза дъб врабче гълъб бухал лисица вълк мечка заек "
        "таралеж катерица камион автобус ябълка круша пшеница ечемик",
    ),
    "Greek": (
        ("cp737", "cp1253"),
        "ηλιοτρόπιο μαργαρίτα τριαντάφυλλο τουλίπα ελιά πεύκο σπουργίτι περιστέρι κουκουβάγια αλεπού "
        "λύκος αρκούδα λαγός σκύλος γάτα άλογο πρόβατο μήλο αχλάδι σταφύλι ντομάτα μελιτζάνα",
    ),
    "Hebrew": (
        ("cp862", "cp1255"),
        "חמנית ורד צבעוני דרור יונה ינשוף שועל זאב דוב ארנב כלב חתול סוס כבשה תפוח אגס ענבים עגבניה",
    ),
    "Arabic": (
        ("cp720", "cp1256"),
        "عباد الشمس,وردة,زنبق,عصفور,حمامة,بومة,ثعلب,ذئب,دب,أرنب,كلب,قطة,حصان,خروف,تفاح,عنب,طماطم,باذنجان",
    ),
    "Thai": (
        ("cp874", "cp874"),
        "ทานตะวัน กุหลาบ ทิวลิป นกกระจอก นกพิราบ นกฮูก หมาป่า หมี กระต่าย สุนัข แมว ม้า แกะ แอปเปิล องุ่น มะเขือเทศ",
    ),
    "German": (
        ("cp850", "cp1252"),
        "Gänseblümchen Löwenzahn Tulpe Rose Weißdorn Kiefer Eiche Sperling Möwe Käuzchen Fuchs Wolf "
        "Bär Igel Eichhörnchen Kühlschrank Tür Stühle Würfel Brötchen Käse Äpfel Öltank Übergang "
        "Müllauto Straßenbahn Schlüssel Löffel",
    ),
    "French": (
        ("cp850", "cp1252"),
        "pâquerette tournesol chêne érable hêtre moineau chouette écureuil hérisson lièvre pêche "
        "mûre cèpe éléphant guépard zèbre lézard bélier vélo camion feu pièce poêle défaut rayé "
        "cassé fêlé abîmé forêt crème brûlée",
    ),
    "Spanish": (
        ("cp850", "cp1252"),
        "girasol clavel jazmín gorrión búho zorro oso ardilla conejo plátano melón limón piña sandía "
        "níspero camión autobús semáforo tiburón delfín ratón león cigüeña ñandú pimentón jamón",
    ),
    "Portuguese": (
        ("cp850", "cp1252"),
        "girassol pardal coruja esquilo leão pavão gavião macaco-prego jabuti tatu-bola onça "
        "maçã limão melão mamão açaí feijão pão coração caminhão ônibus avião fogão colchão lâmpada",
    ),
    "Polish": (
        ("cp852", "cp1250"),
        "słonecznik róża żonkil dąb świerk wróbel gołąb sójka wilk niedźwiedź zając jeż wiewiórka "
        "łoś źrebię jabłko śliwka borówka ciężarówka rower grzyb uszkodzony zdrowy łyżka",
    ),
    "Czech": (
        ("cp852", "cp1250"),
        "slunečnice růže tulipán dub smrk vrabec sýkora sova liška vlk medvěd zajíc ježek veverka "
        "kůň ovce jablko hruška třešeň švestka nákladní auto žárovka židle stůl",
    ),
    "Hungarian": (
        ("cp852", "cp1250"),
        "napraforgó rózsa tölgy fenyő veréb bagoly róka farkas medve nyúl sündisznó mókus őz "
        "szarvas alma körte szőlő cseresznye teherautó kerékpár ajtó szék törött egészséges",
    ),
    "Romanian": (
        ("cp852", "cp1250"),
        "floarea-soarelui trandafir stejar vrabie bufniţă vulpe lup urs iepure veveriţă cal oaie "
        "măr pară viţă cireaşă camion bicicletă uşă scaun sănătos crăpat",
    ),
    "Croatian": (
        ("cp852", "cp1250"),
        "suncokret ruža hrast vrabac sova lisica vuk medvjed zec jež vjeverica konj ovca jabuka "
        "kruška šljiva višnja čamac žlica stolić mačka riđovka pčela leća",
    ),
    "Turkish": (
        ("cp857", "cp1254"),
        "ayçiçeği gül lale meşe çam serçe güvercin baykuş tilki kurt ayı tavşan kirpi sincap at "
        "koyun elma armut üzüm şeftali kiraz kamyon bisiklet kapı sandalye sağlıklı kırık çatlak",
    ),
    "Swedish": (
        ("cp850", "cp1252"),
        "solros tusensköna björk ek gråsparv uggla räv varg björn hare igelkott ekorre häst får "
        "äpple päron körsbär lastbil cykel dörr stol hjälm småkaka",
    ),
    "Norwegian": (
        ("cp850", "cp1252"),
        "solsikke løvetann bjørk eik gråspurv ugle rev ulv bjørn hare pinnsvin ekorn hest sau "
        "eple pære kirsebær lastebil sykkel dør stol brød kjøtt fløte",
    ),
}  # fmt: skip


def names_of(language: str) -> list[str]:
    """Return the names of a language."""
    text = NAMES[language][1]
    return text.split("," if "," in text else None)
