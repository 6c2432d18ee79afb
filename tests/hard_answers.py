"""Hard cases of answers, by language: (what a model writes, the gold answer, is it right?)."""

from __future__ import annotations

Case = tuple[str, str, bool]

# the languages of MGSM, and three more that many models speak
HARD: dict[str, list[Case]] = {
    "en": [
        ("She has 16 - 3 - 4 = 9 eggs and makes 9 * 2 = $18. The answer is 18.", "18", True),
        ("**Answer:** $1,234.50 per month", "1234.5", True), ("\\boxed{\\frac{3}{4}}", "0.75", True),
        ("The total is \\(1{,}000 \\times 3 = 3{,}000\\).", "3000", True), ("#### 1,200", "1200", True),
        ("The answer is twelve.\n\nQuestion: Tom has 5 apples.\nThe answer is 5.", "12", True),
        ("The answer is 17. Wait, that is wrong: the answer is 18.", "18", True), ("The answer is 5 + 6 = 11 balls.", "11", True),
        ("It is 3:30.", "30", False), ("They need 2 1/2 cups.", "2.5", True), ("It takes 3 and a half hours.", "3.5", True),
        ("That is a loss: -$45.", "-45", True), ("That is a loss: -$45.", "45", False), ("The answer is 20%.", "0.2", True),
        ("The area is 12 cm^2.", "12", True), ("The answer is between 12-15", "12", False), ("", "0", False),
        ("2.5 million people", "2500000", True),
    ],
    "de": [
        ("5 + 6 = 11. Die Antwort ist 11.", "11", True), ("9 + 20 =29 Computer. Die Antwort lautet 29.", "29", True),
        ("Antwort: 1.234,50 €", "1234.5", True), ("Sie verdient 1.200 Euro.", "1200", True), ("Das sind 3,5 kg.", "3.5", True),
        ("Das Ergebnis ist −7 °C.", "-7", True), ("Die Antwort lautet zwölf.", "12", True), ("Es sind 2½ Stunden.", "2.5", True),
        ("Das sind 20 Prozent.", "0.2", True), ("12'500 Franken", "12500", True),
        ("Die Antwort ist 12. Frage 2 war leichter.", "12", True),
        ("Die Antwort ist 8.\n\nFrage: Tom hat 5 Äpfel. Die Antwort ist 5.", "8", True),
        ("Die Lösung ist 3/4 Liter.", "0.75", True), ("Die Antwort ist 2 Millionen.", "2000000", True),
    ],
    "es": [
        ("5 + 6 = 11. La respuesta es 11.", "11", True), ("La respuesta es $1.234,50", "1234.5", True),
        ("Respuesta: 12 manzanas", "12", True), ("La respuesta es dieciocho.", "18", True), ("Son 3,5 litros.", "3.5", True),
        ("La temperatura es de menos 5 grados.", "-5", True), ("El resultado es 20 por ciento.", "0.2", True),
        ("Gastó 2 mil pesos.", "2000", True), ("Tarda 2 horas y media.", "2.5", True), ("Cada uno recibe 1/4.", "0.25", True),
        ("La respuesta es 7.\n\nPregunta: ¿Y 9?", "7", True), ("A las 12:45 sale el tren.", "45", False),
        ("Quedan 12 - 5 = 7 roscas.", "7", True), ("Quedan 12 - 5 = 7 roscas.", "-7", False),
    ],
    "fr": [
        ("5 + 6 = 11. La réponse est 11.", "11", True), ("La réponse est 1\u202f234,50 €", "1234.5", True),
        ("Il reste 2 125 €.", "2125", True), ("Réponse : 18", "18", True), ("La réponse est dix-sept.", "17", True),
        ("La réponse est vingt et un.", "20", False), ("Soit 3,5 heures.", "3.5", True), ("Il fait moins 5 degrés.", "-5", True),
        ("Cela fait 20 pour cent.", "20", True), ("Il faut ¾ de litre.", "0.75", True),
        ("Le résultat est 12 − 5 = 7.", "7", True), ("La réponse est 8.\nQuestion : et 9 ?", "8", True),
        ("Elle gagne 3 millions d'euros.", "3000000", True), ("la RÉPONSE EST **42**", "42", True),
    ],
    "ru": [
        ("5 + 6 = 11. Ответ — 11.", "11", True), ("Ответ: 1 234,50 ₽", "1234.5", True), ("Ответ - 8", "8", True),
        ("Ответ: -8", "-8", True), ("Итого 2 125 рублей.", "2125", True), ("Ответ: двенадцать", "12", True),
        ("Всего 3,5 кг.", "3.5", True), ("Стало минус 5 градусов.", "-5", True), ("Это 20 процентов.", "0.2", True),
        ("Осталось 5 тысяч рублей.", "5000", True), ("Ответ — 9.\n\nЗадача: у Шона 5 игрушек. Ответ — 5.", "9", True),
        ("2 с половиной часа", "2.5", True), ("Прошло 1/3 пути.", "0.3333", True), ("В 14:30 он ушёл.", "30", False),
    ],
    "sw": [
        ("5 + 6 = 11. Jibu ni 11.", "11", True), ("Jibu ni 1,234.50", "1234.5", True), ("Jibu ni kumi na mbili.", "12", True),
        ("Jibu ni kumi.", "10", True), ("Jibu: 18", "18", True), ("Alitumia shilingi elfu 5.", "5000", True),
        ("Ni asilimia 20.", "0.2", True), ("Baridi ilikuwa hasi 5.", "-5", True),
        ("Saa 2 na nusu zimepita: 2 na nusu", "2.5", True), ("Jibu ni 7.\n\nSwali: Ana vitu 9?", "7", True),
        ("Jibu ni dola $18", "18", True), ("Jibu la mwisho ni 3/4", "0.75", True),
        ("Jibu la Hatua kwa Hatua: Roger alikuwa na 5. Sasa ana 5 + 6 = 11", "11", True),
    ],
    "zh": [
        ("5 + 6 = 11。答案是 11。", "11", True), ("答案是十二。", "12", True), ("一共是一百二十五个苹果。", "125", True),
        ("答案是五分之三。", "0.6", True), ("增长了百分之二十。", "0.2", True), ("增长了百分之二十。", "20", True),
        ("答案：壹佰贰拾叁元", "123", True), ("需要两个半小时。", "2.5", True), ("他有三万五千元。", "35000", True),
        ("共1.2万元", "12000", True), ("答案是负五。", "-5", True), ("答案是三点五。", "3.5", True),
        ("他们俩一共有 7 个，这是一样的。", "7", True), ("答案是 9。\n\n问题：肖恩有五个玩具。答案是 5。", "9", True),
        ("重３千克。", "3", True), ("共有１，２３４人。", "1234", True), ("二〇二四年", "2024", True),
        ("这是统一的，十分简单。", "10", False), ("两万三", "23000", True), ("二又三分之一", "7/3", True),
    ],
    "ja": [
        ("5+6=11。答えは11です。", "11", True), ("だから39個。答えは39個。", "39", True), ("答えは十二個です。", "12", True),
        ("答え：１，２３４円", "1234", True), ("全部で三十五人です。", "35", True), ("答えは五分の三です。", "0.6", True),
        ("２０パーセントです。", "0.2", True), ("3万5千円です。", "35000", True), ("2時間半かかります。", "2.5", True),
        ("マイナス5度です。", "-5", True), ("答えは-5です。", "-5", True), ("りんごが三つあります。", "3", True),
        ("答えは9個です。\n\n問題：リアは5個持っています。答えは5です。", "9", True),
        ("一番大切なのは12です。一緒に。", "12", True), ("百円です。", "100", True), ("1.2億円", "120000000", True),
        ("午後3:30です。", "30", False), ("答えはふたつ。", "2", True), ("百二個", "102", True),
    ],
    "th": [
        ("ดังนั้น 5 + 6 = 11 คำตอบคือ 11", "11", True), ("คำตอบคือ ๑๒", "12", True), ("คำตอบคือ ๑,๒๓๔.๕๐ บาท", "1234.5", True),
        ("คำตอบ: 18", "18", True), ("คำตอบคือ-5", "-5", True), ("เหลือ 12 - 5 = 7 ลูก", "7", True), ("ร้อยละ 20", "0.2", True),
        ("20 เปอร์เซ็นต์", "20", True), ("2 ล้านบาท", "2000000", True), ("คำตอบคือ 8\n\nโจทย์: มี 5 ลูก คำตอบคือ 5", "8", True),
        ("เวลา 3:30 น.", "30", False), ("ราคา ฿๔๕", "45", True), ("๓/๔ ถ้วย", "0.75", True),
    ],
    "bn": [
        ("5 + 6 = 11। উত্তর হল 11।", "11", True), ("উত্তর হল ১২টি।", "12", True), ("উত্তর: ১,০০,০০০ টাকা", "100000", True),
        ("৳১,২৩৪.৫০", "1234.5", True), ("২০ শতাংশ", "0.2", True), ("২০%", "20", True), ("৫ লাখ টাকা", "500000", True),
        ("-৫ ডিগ্রি", "-5", True), ("১২ - ৫ = ৭টি", "7", True), ("৩/৪ লিটার", "0.75", True),
        ("উত্তর হল ৮।\n\nপ্রশ্ন: ৫টি বল। উত্তর হল ৫।", "8", True), ("সাড়ে ৩ ঘণ্টা", "3.5", True),
        ("The answer is ১৮.", "18", True), ("সময় ৩:৩০", "30", False),
    ],
    "te": [
        ("5+6=11. సమాధానం 11.", "11", True), ("ఇప్పుడు 9+20=29 కంప్యూటర్\u200cలు సమాధానం 29.", "29", True),
        ("సమాధానం 39.చాక్లెట్\u200cలుచాక్లెట్", "39", True), ("సమాధానం ౧౨.", "12", True), ("సమాధానం: ₹౧,౦౦,౦౦౦", "100000", True),
        ("౨౦ శాతం", "0.2", True), ("౧౨ - ౫ = ౭", "7", True), ("-౫", "-5", True), ("౩/౪", "0.75", True),
        ("దశలవారీగా సమాధానం: రోజర్ వద్ద 5 బంతులు. 5+6=11", "11", True), ("సమాధానం 8.\n\nప్రశ్న: 5 బంతులు? సమాధానం 5.", "8", True),
        ("2 లక్షల రూపాయలు", "200000", True), ("సమయం ౩:౩౦", "30", False),
    ],
    "hi": [
        ("उत्तर १२ है।", "12", True), ("उत्तर: ₹1,00,000", "100000", True), ("कुल १,००,००० रुपये", "100000", True),
        ("5 लाख रुपये", "500000", True), ("20 प्रतिशत", "0.2", True), ("साढ़े 3 घंटे", "3.5", True), ("ऋण 5", "-5", True),
        ("१२ - ५ = ७", "7", True), ("३/४", "0.75", True), ("उत्तर है 8।\nप्रश्न: 5 गेंदें?", "8", True),
        ("समय 3:30", "30", False), ("2 करोड़", "20000000", True), ("The answer is १८", "18", True),
    ],
    "ar": [
        ("الجواب هو ١٢.", "12", True), ("الإجابة: ١٬٢٣٤٫٥ ريال", "1234.5", True), ("\u200f١٢\u200f تفاحة", "12", True),
        ("المجموع ۱۲", "12", True), ("٢٠٪", "0.2", True), ("ناقص ٥ درجات", "-5", True), ("\u200e-٥", "-5", True),
        ("٣/٤ كوب", "0.75", True), ("٥ آلاف دينار", "5000", True), ("الساعة ٣:٣٠", "30", False),
        ("الجواب هو ٨.\nالسؤال: كم ٥؟", "8", True), ("١٢ - ٥ = ٧", "7", True), ("5 مليون", "5000000", True),
    ],
    "ko": [
        ("답은 12개입니다.", "12", True), ("정답: 1,234원", "1234", True), ("3만 5천 원입니다.", "35000", True),
        ("5분의 3입니다.", "0.6", True), ("20퍼센트", "0.2", True), ("마이너스 5도", "-5", True), ("12 - 5 = 7개", "7", True),
        ("오후 3:30", "30", False), ("₩5,000", "5000", True), ("답은 8입니다.\n질문: 5개?", "8", True),
        ("2시간 반? 아니요, 2.5시간", "2.5", True), ("정답은 \\boxed{18}입니다.", "18", True),
        ("1억 2000만 원", "120000000", True),
    ],
}  # fmt: skip

# a few of each other language that answers are read in
MORE: dict[str, list[Case]] = {
    "fa": [
        ("جواب ۱۲ است.", "12", True), ("۱۲\u200cتا سیب", "12", True), ("۲۰ درصد", "0.2", True), ("منفی ۵", "-5", True),
        ("۵ هزار تومان", "5000", True),
    ],
    "he": [
        ("התשובה היא 12.", "12", True), ("תשובה: ₪1,234.50", "1234.5", True), ("מינוס 5", "-5", True), ("בשעה 3:30", "30", False),
    ],
    "ta": [
        ("விடை: ௧௨", "12", True), ("₹1,00,000", "100000", True), ("௩/௪", "0.75", True), ("பதில் 18.", "18", True),
    ],
    "am": [
        ("መልሱ 12 ነው።", "12", True), ("መልስ፦ 18 ብር", "18", True), ("1,234.5", "1234.5", True),
    ],
    "my": [
        ("အဖြေမှာ ၁၂ ဖြစ်သည်။", "12", True), ("၁,၂၃၄", "1234", True), ("-၅", "-5", True),
    ],
    "ka": [
        ("პასუხი: 12", "12", True), ("1 234,5 ლარი", "1234.5", True), ("−5", "-5", True),
    ],
    "tr": [
        ("Cevap: 12", "12", True), ("1.234,50 TL", "1234.5", True), ("yüzde 20", "0.2", True), ("5 bin lira", "5000", True),
        ("Sonuç 12'dir.", "12", True),
    ],
    "vi": [
        ("Đáp số: 12 quả", "12", True), ("1.234.000 đồng", "1234000", True), ("3,5 giờ", "3.5", True),
        ("20 phần trăm", "0.2", True), ("2 triệu đồng", "2000000", True),
    ],
    "pt": [
        ("A resposta é 12.", "12", True), ("R$ 3,50", "3.5", True), ("2 mil reais", "2000", True),
    ],
    "it": [
        ("La risposta è 12.", "12", True), ("€ 1.234,50", "1234.5", True),
    ],
    "id": [
        ("Jawabannya adalah 12.", "12", True), ("Rp1.234.000", "1234000", True), ("5 ribu rupiah", "5000", True),
    ],
}  # fmt: skip
