"""The report in Japanese: see `strings` for what the keys mean."""

from __future__ import annotations

SENTENCES = {
    "report": "報告書", "skip": "回答へ移動",
    "foreign": "本文の定型部分は日本語です。各ステップが結果に書き込んだ題名・文・注記は、原文（英語）のまま表示しています。",
    "answer": "回答", "maps": "層マップ", "curves": "推移グラフ", "steps": "実施内容",
    "samples": "出力例", "cost": "コスト", "provenance": "来歴", "caveats": "注意事項",
    "no_results": "完了したステップがまだないため、回答できることはありません。",
    "no_scores": "このレシピにはスコアを測定したステップがありません。各ステップが作成したもの、分かったことは次のとおりです。",
    "missing": "この報告書の作成時点で未完了のステップ：{steps}。数値はゼロではなく、まだ存在しません。",
    "better": "改善", "worse": "悪化", "not distinguishable": "差があるとは言えない",
    "how_to_read": "点は推定値、線は 95 % 区間です。同種の別のテスト項目で測り直した場合、このような線は 20 回中 19 回、"
                   "真の値を含みます。「差があるとは言えない」とは、このデータでは差の有無を区別できないという意味であり、"
                   "差がないという意味ではありません。",
    "heat": "紫は 0 より上、緑は 0 より下で、色が濃いほど 0 から離れています。色のないセルは 0 と区別できません。▲ 改善、▼ 悪化。",
    "maps_intro": "横軸は層、縦軸は層の中の部品です。層の外にあるものは左右に置いています。層数が同じマップは軸を共有しているため、"
                  "同じ層はどのマップでも同じ位置にあります。",
    "samples_intro": "回答の良し悪しではなく、名前のハッシュ値で選んでいます。1 行が 1 プロンプト、1 列が 1 モデルです。",
    "samples_more": "保存されている {total} 件のうち {shown} 件を、ハッシュ値で選んで表示しています。",
    "prompt": "プロンプト", "gold": "参照解答", "empty": "（空）",
    "rows_more": "全 {total} 行のうち先頭の {shown} 行です。全体：{where}。", "in_result": "ステップの result.json",
    "no_rows": "行はありません。", "items_each": "項目数はいずれも n = {n} です。",
    "text_more": "…（残り {left} 文字）", "maps_more": "ほかの {left} 枚のマップは、各ステップの result.json にあります。",
    "step": "ステップ", "time": "時間", "memory": "最大メモリ", "read": "読み込み", "written": "書き込み", "total": "合計",
    "inputs": "入力", "name": "名前", "spec": "指定", "revision": "リビジョン", "identity": "識別子",
    "digest": "内容の SHA-256", "full_digests": "ダイジェスト全体", "versions": "バージョン", "recipe": "レシピ",
    "begun": "開始", "finished": "、終了", "folder": "フォルダ",
    "see_answer": "結果は上の「回答」にあります。",
    "no_caveats": "注意事項を記録したステップはありません。", "no_inputs": "入力を記録したステップはありません。",
    "layer": "層", "at_layer": "第 {n} 層", "not_present": "該当なし", "cell_factor": "セルの数値 × 10",
    "thinned": "全 {total} 点のうち {shown} 点で描画しています。",
    "undefined": "未定義", "interval": "{low}～{high}",
    "seconds": "{n} 秒", "minutes": "{n} 分", "hours": "{n} 時間", "when": "{year}年{month}月{day}日 {time}（UTC）",
}

HEADS = {
    "model": "モデル", "models": "モデル", "task": "タスク", "language": "言語", "languages": "言語", "metric": "指標",
    "measure": "指標", "score": "スコア", "dataset": "データセット", "n": "n", "found": "結果", "demanded": "要求",
    "priority": "優先度", "status": "判定", "verdict": "判定", "holds": "成立", "note": "備考", "why": "理由", "method": "手法",
    "rule": "規則", "what": "内容", "value": "値", "count": "件数", "number": "数", "share": "割合",
    "share of the model": "モデルに占める割合", "share of all parameters": "全パラメータに占める割合", "change": "変化",
    "difference": "差", "step": "ステップ", "layer": "層", "layers": "層", "neurons": "ニューロン", "parameters": "パラメータ",
    "tensors": "テンソル", "bytes": "バイト", "kind": "種類", "property": "項目", "setting": "設定", "seconds": "秒",
    "documents": "文書", "tokens": "トークン", "token": "トークン", "text": "テキスト", "texts": "テキスト",
    "characters": "文字数", "items": "項目", "item": "項目", "examples": "例", "condition": "条件", "answer": "回答",
    "prompt": "プロンプト", "tokenizer": "トークナイザ", "script": "文字体系", "tag": "タグ", "calibrated on": "校正に用いた言語",
    "source": "出典", "cost": "コスト", "check": "検査",
    "group": "区分",
}

# Cells of the columns that hold nothing else (`strings.FIXED_UNDER`).
CELLS = {
    "better": "改善", "worse": "悪化", "not distinguishable": "差があるとは言えない", "yes": "はい", "no": "いいえ",
    "held": "満たす", "failed": "満たさない", "held, uncertain": "満たす（不確実）", "failed, uncertain": "満たさない（不確実）",
    "uncertain": "不確実", "must": "必須", "should": "推奨", "may-give-up": "犠牲可", "target": "対象言語", "english": "英語",
    "other": "他の言語", "fidelity": "回答言語", "copy": "転記", "refusal": "回答拒否",
    "what there is today: the others are compared with it": "現状。他の手法はこれと比較しています",
    "better in the target language, and nothing else was lost beyond what is tolerated": "対象言語で改善し、"
                                                                                         "他に許容範囲を超える損失はない",
    "better in the target language, but more was lost elsewhere than is tolerated": "対象言語で改善したが、"
                                                                                    "他での損失が許容範囲を超える",
    "not shown to be worse anywhere, and cheaper to serve": "悪化は認められず、運用コストが下がる",
    "no difference in the target language that the items can show": "対象言語では、この項目で示せる差がない",
    "worse in the target language": "対象言語で悪化",
    "it ran, but there is no difference with an interval to judge by": "実行したが、判定に使える区間付きの差がない",
    "it could not be run to the end": "最後まで実行できなかった",
    "set aside after an earlier stage": "前の段階の後に除外", "it does not apply here": "適用外",
}

# Sentences and notes that are verdicts as a whole, and how conclusions begin.
VERDICTS = {
    "Yes:": "はい：", "No:": "いいえ：", "Criteria: met.": "基準：満たしています。",
    "Criteria: not met.": "基準：満たしていません。", "Criteria": "基準",
    "passed: every `must` held": "合格：必須の要求をすべて満たしています。",
    "failed: not every `must` held": "不合格：満たしていない必須の要求があります。",
}

# Tables of a decision and of a watch.
DECISION = {
    "Methods beside doing nothing": "「何もしない場合」との比較",
    "English, worst change": "英語、最も悪い変化", "other languages, worst change": "他の言語、最も悪い変化", "Risks": "リスク",
    "answers in the language, change": "対象言語での回答、変化", "copied characters, change": "転記された文字、変化",
    "refusals, change": "回答拒否、変化", "What each costs": "各手法のコスト",
    "change: the method less doing nothing, on the same items; fewer refusals count as better":
        "変化：同じ項目での「手法 − 何もしない場合」の差。回答拒否は少ないほどよいとします。",
    "money: your own prices; serving: the bound for few sequences at once":
        "金額：指定された単価によります。運用：同時に処理する系列が少ない場合の見積もりです。",
    "time to make": "作成時間", "training tokens": "学習トークン数", "weights touched": "変更した重み", "stored": "保存サイズ",
    "read for a token": "1 トークンあたりの読み込み", "tokens a character": "1 文字あたりのトークン数",
    "Everything that was measured": "測定したすべての項目", "about": "区分", "place": "掲載箇所", "Why": "理由", "reason": "理由",
    "What to know of each": "各手法の留意点", "Licences of the sources": "入力のライセンス", "named as": "指定",
    "licence": "ライセンス", "says who": "記載元", "What the mix obliges to": "組み合わせによる義務", "obligation": "義務",
    "change: the method less doing nothing, on the same items": "変化：同じ項目での「手法 − 何もしない場合」の差。",
    "place: the step in this report, and the row in its table": "掲載箇所：この報告書のステップと、その表の行。",
    "no legal advice": "法的助言ではありません。",
    "later stages train longer and ask more items": "後の段階ほど長く学習し、多くの項目で評価します。",
    "Drift": "ドリフト", "Checks": "点検の履歴", "Chain of manifests": "マニフェストの連鎖", "made by": "作成したステップ",
    "Differences on the same items, tested in pairs.": "同じ項目での差（対応のある検定）。",
    "Complete: polygraft did not make the last one.": "完全：最後のモデルは polygraft が作成したものではありません。",
}
UNITS = {
    "points": "ポイント", "nats": "ナット", "items": "項目", "tokens": "トークン", "seconds": "秒", "layers": "層",
    "share": "割合",
}

LANGUAGES = {
    "am": "アムハラ語", "ar": "アラビア語", "az": "アゼルバイジャン語", "bg": "ブルガリア語", "bn": "ベンガル語",
    "bo": "チベット語", "ca": "カタルーニャ語", "cs": "チェコ語", "da": "デンマーク語", "de": "ドイツ語", "el": "ギリシャ語",
    "en": "英語", "es": "スペイン語", "et": "エストニア語", "eu": "バスク語", "fa": "ペルシア語", "fi": "フィンランド語",
    "fr": "フランス語", "ga": "アイルランド語", "gl": "ガリシア語", "gu": "グジャラート語", "ha": "ハウサ語", "he": "ヘブライ語",
    "hi": "ヒンディー語", "hr": "クロアチア語", "ht": "ハイチ語", "hu": "ハンガリー語", "hy": "アルメニア語",
    "id": "インドネシア語", "ig": "イボ語", "is": "アイスランド語", "it": "イタリア語", "ja": "日本語", "jv": "ジャワ語",
    "ka": "ジョージア語", "kk": "カザフ語", "km": "クメール語", "kn": "カンナダ語", "ko": "韓国語", "ky": "キルギス語",
    "la": "ラテン語", "lo": "ラオ語", "lt": "リトアニア語", "lv": "ラトビア語", "mg": "マダガスカル語", "mk": "マケドニア語",
    "ml": "マラヤーラム語", "mn": "モンゴル語", "mr": "マラーティー語", "ms": "マレー語", "mt": "マルタ語", "my": "ビルマ語",
    "ne": "ネパール語", "nl": "オランダ語", "no": "ノルウェー語", "om": "オロモ語", "or": "オリヤー語", "pa": "パンジャーブ語",
    "pl": "ポーランド語", "ps": "パシュトー語", "pt": "ポルトガル語", "qu": "ケチュア語", "ro": "ルーマニア語", "ru": "ロシア語",
    "rw": "ルワンダ語", "sa": "サンスクリット", "sd": "シンド語", "si": "シンハラ語", "sk": "スロバキア語", "sl": "スロベニア語",
    "sn": "ショナ語", "so": "ソマリ語", "sq": "アルバニア語", "sr": "セルビア語", "su": "スンダ語", "sv": "スウェーデン語",
    "sw": "スワヒリ語", "ta": "タミル語", "te": "テルグ語", "tg": "タジク語", "th": "タイ語", "ti": "ティグリニャ語",
    "tl": "タガログ語", "tr": "トルコ語", "ug": "ウイグル語", "uk": "ウクライナ語", "ur": "ウルドゥー語", "uz": "ウズベク語",
    "vi": "ベトナム語", "wo": "ウォロフ語", "xh": "コサ語", "yi": "イディッシュ語", "yo": "ヨルバ語", "zh": "中国語（簡体字）",
    "zh-Hant": "中国語（繁体字）", "zu": "ズールー語",
}

WORDS = UNITS | HEADS | DECISION | VERDICTS  # what means the same wherever it stands
JA = SENTENCES | {f"= {word}": said for word, said in WORDS.items()} | {f"cell {word}": said for word, said in CELLS.items()} | {
    f"language {tag}": name for tag, name in LANGUAGES.items()}
