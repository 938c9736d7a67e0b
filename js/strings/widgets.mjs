/** Words of the widgets, by language. */

const en = { "widgets.more": "Show advanced inputs", "widgets.less": "Hide advanced inputs" };
const zh = { "widgets.more": "显示高级输入", "widgets.less": "隐藏高级输入" };
const ja = { "widgets.more": "詳細入力を表示", "widgets.less": "詳細入力を隠す" };

export default { en, zh, ja };
